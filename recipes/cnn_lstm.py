"""A CNN with an LSTM over the rows of a picture, and an LSTM alone; their states are features.

Conv(32, 3 x 3) - MaxPool - LSTM(64) - Dense(1) and LSTM(64) - Dense(1), on scikit-learn's 1,797
scans of digits: people "like" the even ones. The features retrieve what a like-minded eye would.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import recfuse
from recfuse.serving import export_onnx
from recipes import shared

HEADS = ("score", "features")


class CnnLstm(nn.Module):
    """(n, 1, side, side) to the probability of a like, and 64 features."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 32, 3)
        self.lstm = nn.LSTM(32 * ((side - 2) // 2), 64, batch_first=True)
        self.dense = nn.Linear(64, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = torch.max_pool2d(torch.relu(self.convolution(image)), 2)
        features = self.lstm(maps.permute(0, 2, 1, 3).flatten(2))[0][:, -1]
        return torch.sigmoid(self.dense(features)), features


class Lstm(nn.Module):
    """The rows of the picture as the steps of a sequence, without convolution."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(side, 64, batch_first=True)
        self.dense = nn.Linear(64, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.lstm(image.flatten(1, 2))[0][:, -1]
        return torch.sigmoid(self.dense(features)), features


def digits() -> tuple[shared.Array, shared.Array]:
    """Return scans (1797, 1, 8, 8) from 0 to 1, and which digit each is."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    return scans.images.astype(np.float32)[:, None] / 16, scans.target


def train(network: nn.Module, image: shared.Array, liked: shared.Array, epochs: int) -> float:
    x, y = shared.tensors(image, liked.astype(np.float32)[:, None])

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy(network(x[rows])[0], y[rows])

    return shared.fit(network, len(x), loss_of, epochs=epochs, batch_size=32)


def precision(vectors: shared.Array, liked: shared.Array, known: slice, new: slice) -> float:
    """Return how many of the ten known scans most similar to a new one are liked as it is."""
    ids, _ = recfuse.topk(vectors[new], vectors[known], 10, metric="cosine")
    return float(np.mean(liked[known][ids] == liked[new, None]))


def main(epochs: int = 10) -> list[list[object]]:
    from sklearn.linear_model import LogisticRegression

    image, digit = digits()
    liked, pixels = digit % 2 == 0, image.reshape(len(image), -1)
    known, new = slice(0, 1300), slice(1300, None)
    line = LogisticRegression(max_iter=1000).fit(pixels[known], liked[known])
    right = float(line.score(pixels[new], liked[new]))
    rows: list[list[object]] = [
        ["pixels, logistic regression", right, precision(pixels, liked, known, new), "", ""]
    ]
    for kind in (CnnLstm, Lstm):
        torch.manual_seed(0)
        network = kind(side=8)
        seconds = train(network, image[known], liked[known], epochs)
        model = export_onnx(network, {"image": image[:3]}, outputs=HEADS)
        score = recfuse.OnnxEncoder(model, output="score").encode(image[new])[:, 0]
        features = recfuse.OnnxEncoder(model, output="features").encode(image)
        right = float(np.mean((score > 0.5) == liked[new]))
        near = precision(features, liked, known, new)
        rows.append([kind.__name__, right, near, f"{seconds:.0f}", f"{len(model) / 1e3:.0f}"])
    print(shared.table(["network", "accuracy", "precision@10", "seconds", "kB"], rows))
    return rows


if __name__ == "__main__":
    main()
