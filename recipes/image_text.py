"""One network with two inputs, a picture and a text; it knows what neither tells alone.

The cover of a product is one of scikit-learn's scans of digits, its description 20 generated words
about one of two subjects. People buy even covers about the first subject, and nothing else: who
sees one modality alone is wrong about every second of those. The served network ranks candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import recfuse
from recfuse.serving import export_onnx
from recipes import shared
from recipes.cnn_lstm import digits

WORDS, VOCABULARY = 20, 1000


class ImageText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3)
        self.second = nn.Conv2d(32, 64, 3)
        self.words = nn.Embedding(VOCABULARY, 64)
        self.lstm = nn.LSTM(64, 64, batch_first=True)
        self.hidden = nn.Linear(64 * 4 + 64, 128)
        self.dropout = nn.Dropout(0.5)
        self.score = nn.Linear(128, 1)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.second(torch.relu(self.first(image))))
        seen = torch.max_pool2d(maps, 2).flatten(1)
        read = self.lstm(self.words(text))[0][:, -1]
        hidden = torch.relu(self.hidden(torch.cat([seen, read], dim=1)))
        return torch.sigmoid(self.score(self.dropout(hidden)))


def products() -> tuple[shared.Array, shared.Array, shared.Array]:
    """Return covers, descriptions as numbers of words, and what people buy."""
    image, digit = digits()
    rng = np.random.default_rng(0)
    subject = rng.integers(0, 2, len(image))
    about = rng.integers(0, 100, (len(image), WORDS)) + 100 * subject[:, None]
    filler = rng.integers(200, VOCABULARY, about.shape)
    text = np.where(rng.random(about.shape) < 0.5, about, filler)
    return image, text, (digit % 2 == 0) & (subject == 0)


def train(
    image: shared.Array, text: shared.Array, bought: shared.Array, epochs: int
) -> tuple[ImageText, float]:
    torch.manual_seed(0)
    network = ImageText()
    x, t, y = shared.tensors(image, text, bought.astype(np.float32)[:, None])

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy(network(x[rows], t[rows]), y[rows])

    seconds = shared.fit(network, len(x), loss_of, epochs=epochs, batch_size=32)
    return network, seconds


def line(features: shared.Array, bought: shared.Array, known: slice, new: slice) -> float:
    """Return the accuracy of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=2000).fit(features[known], bought[known])
    return float(model.score(features[new], bought[new]))


def main(epochs: int = 12) -> dict[str, float]:
    image, text, bought = products()
    known, new = slice(0, 1300), slice(1300, None)
    network, seconds = train(image[known], text[known], bought[known], epochs)
    model = export_onnx(network, {"image": image[:3], "text": text[:3]}, outputs=["bought"])
    encoder = recfuse.OnnxEncoder(model)
    scores = encoder.encode({"image": image[new], "text": text[new]})

    counts = np.zeros((len(text), VOCABULARY), np.float32)
    np.add.at(counts, (np.arange(len(text))[:, None], text), 1)
    pixels = image.reshape(len(image), -1)
    accuracy = {
        "network of both": float(np.mean((scores[:, 0] > 0.5) == bought[new])),
        "line, cover alone": line(pixels, bought, known, new),
        "line, text alone": line(counts, bought, known, new),
        "line, both": line(np.hstack([pixels, counts]), bought, known, new),
    }
    print(shared.table(["model", "accuracy"], [[name, value] for name, value in accuracy.items()]))
    best = np.argsort(-scores[:, 0], kind="stable")[:10]
    print(f"of the ten ranked first, {bought[new][best].sum()} are bought")
    print(f"trained in {seconds:.0f} s; {len(model) / 1e3:.0f} kB")
    return accuracy


if __name__ == "__main__":
    main()
