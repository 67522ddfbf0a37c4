"""Towers of users, products and their other modalities: trained outside, searched by recfuse.

Needs recfuse[train].
"""

from __future__ import annotations

import numpy as np
import oracle
import torch
from torch import nn

import recfuse
from recfuse.serving import export_onnx

# Clicks, views and purchases of two users; attributes, and text and image, of three products. The
# original had whole numbers, which a linear layer refuses, and moved networks to no known device.
USERS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
PRODUCTS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
CONTENT = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
RATINGS = np.array([[1, 2, 3], [1, 2, 3]], np.float32)  # the original's target, for both users
DIM = 8


def tower(width: int) -> nn.Sequential:
    """Layers of 128, 64, 32 and 8; none after the last, so that factors may be negative."""
    # The original compared 8 outputs with the 2 or 4 inputs, and gave every tower the width of all.
    return nn.Sequential(
        *(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()),
        *(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, DIM)),
    )


class Recommender(nn.Module):
    """Score = user . product + user . content: a sum of inner products, one per modality."""

    def __init__(self) -> None:
        super().__init__()
        self.user = tower(USERS.shape[1])
        self.product = tower(PRODUCTS.shape[1])
        self.content = tower(CONTENT.shape[1])

    def forward(
        self, users: torch.Tensor, products: torch.Tensor, content: torch.Tensor
    ) -> torch.Tensor:
        return self.user(users) @ (self.product(products) + self.content(content)).T


def train(model: Recommender, epochs: int = 300) -> list[float]:
    data = [torch.tensor(array) for array in (USERS, PRODUCTS, CONTENT, RATINGS)]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    losses = []
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(*data[:3]), data[3])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def by_hand(network: nn.Sequential, rows: np.ndarray) -> np.ndarray:
    w, hidden = oracle.parameters(network), rows.astype(np.float64)
    for layer in ("0", "2", "4"):
        hidden = oracle.relu(oracle.dense(hidden, w[f"{layer}.weight"], w[f"{layer}.bias"]))
    return oracle.dense(hidden, w["6.weight"], w["6.bias"])


def main() -> None:
    torch.manual_seed(0)
    model = Recommender()
    losses = train(model)
    print(
        f"loss {losses[0]:.3f} at first, {losses[9]:.3f} after 10 epochs, {losses[-1]:.5f} at last"
    )

    vectors = {}
    for name, rows in (("user", USERS), ("product", PRODUCTS), ("content", CONTENT)):
        network = getattr(model, name)
        vectors[name] = recfuse.OnnxEncoder(export_onnx(network, {name: rows})).encode(rows)
        oracle.assert_close(vectors[name], by_hand(network, rows), f"tower of {name}")

    index = recfuse.FusedIndex(
        {name: vectors[name] for name in ("product", "content")}, metric="dot"
    )
    ids, scores = index.topk({"product": vectors["user"], "content": vectors["user"]}, k=3)
    print(ids, scores, sep="\n")
    items = by_hand(model.product, PRODUCTS) + by_hand(model.content, CONTENT)
    expected = by_hand(model.user, USERS) @ items.T
    oracle.assert_ranking(ids, scores, expected, "fused search")
    assert ids.tolist() == oracle.topk(RATINGS, 3).tolist(), "it must have learned the ratings"


if __name__ == "__main__":
    main()
