"""Towers of users, products and content, learned together; retrieval is a fused top-k search.

``score(u, i) = <u_product, p_i> + <u_content, c_i>``: the user tower says one vector per modality,
so each item modality has its own tower and stays a modality of the index, with its own weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import recfuse
from recfuse.evaluation import compare
from recfuse.serving import export_onnx
from recipes import shared

DIM = 64


class TwoTower(nn.Module):
    def __init__(self, data: shared.Data) -> None:
        super().__init__()
        n_items = len(data.product)
        self.user = UserTower(n_items, data.profile.shape[1])
        self.product = ProductTower(n_items, data.product.shape[1])
        self.content = shared.tower(data.content.shape[1], 128, DIM)


class UserTower(nn.Module):
    """What a person liked, and who it is; the two vectors side by side."""

    def __init__(self, n_items: int, n_profile: int) -> None:
        super().__init__()
        self.taste = nn.Linear(n_items, 256)
        self.person = nn.Linear(n_profile, 256)
        self.mixed = nn.Linear(256, 2 * DIM)

    def forward(self, history: torch.Tensor, profile: torch.Tensor) -> torch.Tensor:
        length = history.square().sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        return self.mixed(torch.tanh(self.taste(history / length) + self.person(profile)))


class ProductTower(nn.Module):
    """Attributes, and what only the item's own number can tell."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.own = nn.Embedding(n_items, DIM)
        self.attributes = shared.tower(width, 128, DIM)
        nn.init.normal_(self.own.weight, std=0.05)

    def forward(self, item: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
        return self.own(item) + self.attributes(product)


def train(
    data: shared.Data,
    *,
    epochs: int = 10,
    items_dropped: float = 0.5,
    modalities_dropped: float = 0.0,
) -> tuple[TwoTower, float]:
    """Learn to tell what a person liked from what others did; return the seconds, too."""
    torch.manual_seed(0)
    network = TwoTower(data)
    dice = torch.Generator().manual_seed(1)
    likes = data.liked().train
    users, items = shared.tensors(likes.user_index, likes.item_index)
    histories, profile, product, content = shared.tensors(
        data.histories(), data.profile, data.product, data.content
    )
    counts = torch.bincount(items, minlength=len(product)).clamp(min=1)
    log_popularity = torch.log(counts / len(items))

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        user, item = users[rows], items[rows]
        history = histories[user]
        history[torch.arange(len(rows)), item] = 0  # or the answer would stand in the question
        of_user = network.user(shared.drop_items(history, items_dropped, dice), profile[user])
        of_items = [network.product(item, product[item]), network.content(content[item])]
        of_items = shared.drop_modalities(of_items, modalities_dropped, dice)
        return shared.in_batch_softmax(of_user @ torch.hstack(of_items).T, item, log_popularity)

    return network, shared.fit(
        network, len(items), loss_of, epochs=epochs, batch_size=1024, rate=2e-3, decay=0.1
    )


def examples(data: shared.Data, rows: Any) -> dict[str, dict[str, shared.Array]]:
    """Return the inputs of every tower, of these users and of all items."""
    return {
        "user": {"history": data.histories()[rows], "profile": data.profile[rows]},
        "product": {"item": np.arange(len(data.product)), "product": data.product},
        "content": {"content": data.content},
    }


def export(network: TwoTower, data: shared.Data) -> dict[str, bytes]:
    """Return an ONNX model per tower."""
    few = {
        name: {key: x[:3] for key, x in inputs.items()}
        for name, inputs in examples(data, slice(3)).items()
    }
    return {name: export_onnx(getattr(network, name), few[name]) for name in few}


class Retrieval:
    """The towers served by ONNX Runtime, their vectors searched by one fused index."""

    def __init__(self, models: Mapping[str, bytes], data: shared.Data) -> None:
        self.data = data
        self.encoders = {name: recfuse.OnnxEncoder(model) for name, model in models.items()}
        inputs = examples(data, slice(None))
        self.items = {m: self.encoders[m].encode(inputs[m]) for m in ("product", "content")}
        self.users = self.encoders["user"].encode(inputs["user"])
        self.index = recfuse.FusedIndex(self.items, metric="dot")

    def recommend(
        self, users: Any, k: int, *, user_items: Any = None, weights: Any = None
    ) -> tuple[Any, ...]:
        product, content = np.split(self.users[users], 2, axis=1)
        queries = {"product": product, "content": content}
        return self.index.topk(queries, k, weights=weights, exclude=user_items)


def main(data: shared.Data | None = None, epochs: int = 10) -> None:
    data = shared.load() if data is None else data
    network, seconds = train(data, epochs=epochs)
    models = export(network, data)
    likes, retrieval = data.liked(), Retrieval(models, data)
    popular = recfuse.Popularity().fit(likes.train)
    als = recfuse.AlternatingLeastSquares(64, regularization=30.0, alpha=10.0, random_state=0)
    contenders = {
        "popularity": popular,
        "ALS": als.fit(likes.train),
        "two-tower": retrieval,
        "content tower alone": lambda users, k, *, user_items: retrieval.recommend(
            users, k, user_items=user_items, weights={"product": 0.0, "content": 1.0}
        ),
    }
    print(compare(contenders, likes, k=20))
    sizes = ", ".join(f"{name} {len(model) / 1e3:.0f} kB" for name, model in models.items())
    print(f"{data.name}: trained in {seconds:.0f} s; {sizes}")


if __name__ == "__main__":
    main()
