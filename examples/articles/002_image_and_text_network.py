"""A network with two inputs, a picture of 224 x 224 and a text of 100 words, served as one model.

Needs recfuse[train].
"""

from __future__ import annotations

import numpy as np
import oracle
import torch
from torch import nn

import recfuse
from recfuse.serving import export_onnx

SIDE, WORDS, VOCABULARY = 224, 100, 10_000
N_TRAIN, N_TEST = 64, 16


class ImageAndText(nn.Module):
    """Two convolutions, an LSTM, and layers over both; the probability of a purchase."""

    def __init__(self) -> None:
        super().__init__()
        # The original never imported `concatenate`, and flattened 220 x 220 x 64 numbers into a
        # layer of 396 million weights: strides, pooling and a mean keep 64 of them.
        self.first = nn.Conv2d(3, 64, 3, stride=2)
        self.second = nn.Conv2d(64, 64, 3, stride=2)
        self.words = nn.Embedding(VOCABULARY, 64)
        self.lstm = nn.LSTM(64, 64, batch_first=True)
        self.hidden = nn.Linear(128, 128)
        self.dropout = nn.Dropout(0.5)
        self.score = nn.Linear(128, 1)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        seen = torch.max_pool2d(torch.relu(self.first(image)), 2)
        seen = torch.relu(self.second(seen)).mean(dim=(2, 3))
        read = self.lstm(self.words(text))[0][:, -1]
        both = torch.relu(self.hidden(torch.cat([seen, read], dim=1)))
        return torch.sigmoid(self.score(self.dropout(both)))


def products(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw pictures and texts; people buy what is red and about the first of two subjects."""
    red, subject = rng.integers(0, 2, n), rng.integers(0, 2, n)
    image = rng.random((n, 3, SIDE, SIDE), np.float32)
    image[:, 0] += red[:, None, None]
    text = rng.integers(0, 50, (n, WORDS)) + 5000 * subject[:, None]
    return image, text, ((red == 1) & (subject == 0)).astype(np.float32)


def train(network: ImageAndText, image: np.ndarray, text: np.ndarray, bought: np.ndarray) -> None:
    data = [torch.as_tensor(array) for array in (image, text, bought[:, None])]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.004)
    for epoch in range(8):
        total = 0.0
        for rows in torch.randperm(len(image)).split(32):
            optimiser.zero_grad()
            x, t, y = (array[rows] for array in data)
            loss = nn.functional.binary_cross_entropy(network(x, t), y)
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows) / len(image)
        print(f"epoch {epoch + 1}, loss {total:.3f}")


def by_hand(network: ImageAndText, image: np.ndarray, text: np.ndarray) -> np.ndarray:
    w = oracle.parameters(network)
    seen = oracle.convolution(image, w["first.weight"], w["first.bias"], stride=2)
    seen = oracle.max_pool(oracle.relu(seen))
    seen = oracle.convolution(seen, w["second.weight"], w["second.bias"], stride=2)
    gates = (w[f"lstm.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    read = oracle.lstm(w["words.weight"][text], *gates)
    both = np.hstack([oracle.relu(seen).mean(axis=(2, 3)), read])
    both = oracle.relu(oracle.dense(both, w["hidden.weight"], w["hidden.bias"]))
    return oracle.sigmoid(oracle.dense(both, w["score.weight"], w["score.bias"]))


def main() -> None:
    torch.manual_seed(0)
    image, text, bought = products(N_TRAIN + N_TEST, np.random.default_rng(0))
    network = ImageAndText()
    train(network, image[:N_TRAIN], text[:N_TRAIN], bought[:N_TRAIN])
    model = export_onnx(network, {"image": image[:2], "text": text[:2]}, outputs=["probability"])

    encoder = recfuse.OnnxEncoder(model, batch_size=16)
    test = slice(N_TRAIN, None)
    scores = encoder.encode({"image": image[test], "text": text[test]})
    few = slice(N_TRAIN, N_TRAIN + 4)
    oracle.assert_close(scores[:4], by_hand(network, image[few], text[few]), "network")

    right = np.mean((scores[:, 0] > 0.5) == bought[test])
    print(f"{right:.0%} right; {1 - bought[test].mean():.0%} if nothing were ever bought")
    assert right > 1 - bought[test].mean()


if __name__ == "__main__":
    main()
