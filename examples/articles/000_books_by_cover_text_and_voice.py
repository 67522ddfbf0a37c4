"""A book shop: clean the purchases, encode covers, texts and readings, fuse them, recommend.

Needs recfuse[features,frames,train].
"""

from __future__ import annotations

import io

import numpy as np
import oracle
import pandas as pd
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

import recfuse
from recfuse.serving import export_onnx

N_BOOKS, N_USERS = 320, 40
WEIGHTS = {"cover": 0.5, "text": 0.3, "voice": 0.2}


class CoverNetwork(nn.Module):
    """Conv2D(32, 3 x 3) - MaxPool(2 x 2) - LSTM(64) - Dense(1)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 32, 3)
        self.lstm = nn.LSTM(32 * ((side - 2) // 2), 64, batch_first=True)
        self.dense = nn.Linear(64, 1)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = torch.max_pool2d(torch.relu(self.convolution(rows)), 2)
        # The original gave the LSTM four axes; a row of the picture is a step of the sequence.
        features = self.lstm(maps.permute(0, 2, 1, 3).flatten(2))[0][:, -1]
        return torch.sigmoid(self.dense(features)), features

    def by_hand(self, rows: np.ndarray) -> np.ndarray:
        w = oracle.parameters(self)
        maps = oracle.convolution(rows, w["convolution.weight"], w["convolution.bias"])
        maps = oracle.max_pool(oracle.relu(maps)).transpose(0, 2, 1, 3)
        return last_state(w, maps.reshape(*maps.shape[:2], -1))


class SequenceNetwork(nn.Module):
    """LSTM(64) - Dense(1), for texts and for readings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, 64, batch_first=True)
        self.dense = nn.Linear(64, 1)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.lstm(rows)[0][:, -1]
        return torch.sigmoid(self.dense(features)), features

    def by_hand(self, rows: np.ndarray) -> np.ndarray:
        return last_state(oracle.parameters(self), rows)


def last_state(w: dict[str, np.ndarray], steps: np.ndarray) -> np.ndarray:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return oracle.lstm(steps, *(w[f"lstm.{name}_l0"] for name in names))


def books(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw a kind for every book, and a cover, a text and a voice that show it, through noise."""
    kind = rng.integers(0, 2, N_BOOKS)
    waves = np.sin(np.arange(16) * np.where(kind, 0.8, 1.4)[:, None])
    shown = {
        "cover": waves[:, None, None, :].repeat(16, axis=2),
        "text": (2.0 * kind - 1)[:, None, None] * np.ones((12, 8)),
        "voice": waves[:, :, None].repeat(8, axis=2),
    }
    noisy = {name: x + rng.normal(size=x.shape) for name, x in shown.items()}
    return kind, {name: x.astype(np.float32) for name, x in noisy.items()}


def purchases(kind: np.ndarray, rng: np.random.Generator) -> str:
    """Write a file of purchases with scores, of which some are missing and some no scores."""
    user, book = rng.integers(0, N_USERS, 6000), rng.integers(0, N_BOOKS, 6000)
    score = 2.0 + 2.0 * kind[book] + rng.normal(size=6000)
    score[rng.random(6000) < 0.05] = np.nan
    return pd.DataFrame({"user": user, "book": book, "score": score}).to_csv(index=False)


def clean(file: io.StringIO) -> pd.DataFrame:
    """Leave out what is missing or not above 0; scale scores to mean 0 and deviation 1."""
    data = pd.read_csv(file).dropna()
    data = data[data["score"] > 0]
    raw = data["score"].to_numpy()
    data = data.assign(score=StandardScaler().fit_transform(raw[:, None])[:, 0])
    oracle.assert_close(data["score"], (raw - raw.mean()) / raw.std(), "scores", tolerance=1e-12)
    return data


def train(network: nn.Module, rows: np.ndarray, liked: np.ndarray) -> None:
    x, y = torch.tensor(rows), torch.tensor(liked[:, None])
    optimiser = torch.optim.Adam(network.parameters(), lr=0.001)
    for _ in range(10):
        for batch in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy(network(x[batch])[0], y[batch])
            loss.backward()
            optimiser.step()


def weighted_sum(parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.tensordot(weights, parts, axes=1)


def weighted_average(parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weighted_sum(parts, weights) / weights.sum()  # the original's did not divide


def main() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    kind, modalities = books(rng)
    data = clean(io.StringIO(purchases(kind, rng)))
    liked = data.groupby("book")["score"].mean().reindex(range(N_BOOKS), fill_value=0.0) > 0
    print(f"{len(data)} purchases, {liked.mean():.0%} of the books are liked")

    features = {}
    for name, rows in modalities.items():
        network = CoverNetwork(16) if name == "cover" else SequenceNetwork(8)
        train(network, rows, liked.to_numpy(np.float32))
        model = export_onnx(network, {name: rows[:2]}, outputs=["score", "features"])
        features[name] = recfuse.OnnxEncoder(model, output="features").encode(rows)
        oracle.assert_close(features[name], network.by_hand(rows), f"features of {name}")

    # A user is the mean of the books bought; the books bought are not shown again.
    events = recfuse.Interactions.from_arrays(
        data["user"], data["book"], item_labels=range(N_BOOKS)
    )
    history = events.deduplicate().to_csr()
    counts = history.sum(axis=1)[:, None]
    users = {name: (history @ x / counts).astype(np.float32) for name, x in features.items()}
    index = recfuse.FusedIndex(features)
    cosines = {
        name: oracle.cosine(users[name].astype(float), x.astype(float))
        for name, x in features.items()
    }
    hidden = np.where(history.toarray() > 0, -np.inf, 0)

    # Nodes of a fusion: the average of what the CNN saw, and the sum of what the LSTMs read.
    w = {name: np.array([value]) for name, value in WEIGHTS.items()}
    composed = weighted_average(cosines["cover"][None], w["cover"]) + weighted_sum(
        np.stack([cosines["text"], cosines["voice"]]), np.r_[w["text"], w["voice"]]
    )
    ids, scores = index.topk(users, k=10, weights={**WEIGHTS, "cover": 1.0}, exclude=history)
    oracle.assert_ranking(ids, scores, composed + hidden, "composition")
    of_all = np.stack(list(cosines.values()))
    for fusion, by_hand in (("sum", weighted_sum), ("average", weighted_average)):
        halves = {name: 2 * value for name, value in WEIGHTS.items()}  # that they add up to 2
        expected = by_hand(of_all, np.array(list(halves.values())))
        found = index.topk(users, k=10, weights=halves, fusion=fusion, exclude=history)
        oracle.assert_ranking(*found, expected + hidden, fusion)
        print(f"{fusion:8s} best score of the first user {found[1][0, 0]:.3f}")
    print("books for user", events.users[0], ids[0].tolist())


if __name__ == "__main__":
    main()
