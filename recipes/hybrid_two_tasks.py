"""A deep hybrid with two tasks: will a person like a film, and how many stars will it get.

Behaviour (what the person liked, the item's own number) and content (who the person is, what the
item is) meet in one network; the tasks share all layers but the last.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import recfuse
from recfuse.evaluation import rmse
from recfuse.serving import export_onnx
from recipes import shared

INPUTS = ("history", "profile", "item", "product", "content")
HEADS = ("liked", "stars")


class Hybrid(nn.Module):
    def __init__(self, data: shared.Data) -> None:
        super().__init__()
        n_items = len(data.product)
        self.taste = nn.Linear(n_items, 64)
        self.person = nn.Linear(data.profile.shape[1], 64)
        self.own = nn.Embedding(n_items, 64)
        self.kind = nn.Linear(data.product.shape[1], 64)
        self.words = nn.Linear(data.content.shape[1], 64)
        self.popular = nn.Embedding(n_items, 1)
        self.shared = nn.Sequential(
            nn.ReLU(), nn.Dropout(0.3), nn.Linear(192, 64), nn.ReLU(), nn.Dropout(0.3)
        )
        self.heads = nn.Linear(64, 2)
        nn.init.normal_(self.own.weight, std=0.05)
        nn.init.zeros_(self.popular.weight)

    def forward(
        self,
        history: torch.Tensor,
        profile: torch.Tensor,
        item: torch.Tensor,
        product: torch.Tensor,
        content: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = history.square().sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        user = self.taste(history / length) + self.person(profile)
        film = self.own(item) + self.kind(product) + self.words(content)
        both = self.heads(self.shared(torch.hstack([user, film, user * film])))
        liked = torch.sigmoid(both[:, :1] + self.popular(item))
        return liked, 3.5 + both[:, 1:]


def train(data: shared.Data, *, epochs: int = 8) -> tuple[Hybrid, float]:
    """Minimise cross-entropy of likes, random items beside them, plus squared error of stars."""
    torch.manual_seed(0)
    network, dice = Hybrid(data), torch.Generator().manual_seed(1)
    events = data.split.train
    users, items, stars = shared.tensors(events.user_index, events.item_index, events.values)
    histories, profile, product, content = shared.tensors(
        data.histories(), data.profile, data.product, data.content
    )

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        user, item = users[rows], items[rows]
        history = histories[user]
        history[torch.arange(len(rows)), item] = 0
        history = shared.drop_items(history, 0.3, dice)
        other = torch.randint(len(product), (len(rows),), generator=dice)
        truth = (stars[rows] >= 4).float()[:, None]
        (liked, given), (not_liked, _) = (
            network(history, profile[user], i, product[i], content[i]) for i in (item, other)
        )
        likes = nn.functional.binary_cross_entropy(
            torch.cat([liked, not_liked]), torch.cat([truth, torch.zeros_like(truth)])
        )
        return likes + nn.functional.mse_loss(given[:, 0], stars[rows])

    return network, shared.fit(network, len(items), loss_of, epochs=epochs, decay=0.05)


def pairs(data: shared.Data, users: shared.Array, items: shared.Array) -> dict[str, shared.Array]:
    """Return the inputs of the network for these pairs."""
    of_user = {"history": data.histories()[users], "profile": data.profile[users]}
    of_item = {"item": items, "product": data.product[items], "content": data.content[items]}
    return of_user | of_item


def rankers(model: bytes, data: shared.Data) -> dict[str, recfuse.OnnxRanker]:
    """Return what serves each head: features stay in one row per person and film."""
    items = np.arange(len(data.product))
    users = {"history": data.histories(), "profile": data.profile}
    films = {"item": items, "product": data.product, "content": data.content}
    return {
        name: recfuse.OnnxRanker(model, users=users, items=films, output=name) for name in HEADS
    }


def auc(scores: shared.Array, truth: shared.Array) -> float:
    """Chance that a true pair is above an untrue one, ties counted half."""
    from scipy.stats import rankdata

    n = truth.sum()
    return float((rankdata(scores)[truth].sum() - n * (n + 1) / 2) / (n * (~truth).sum()))


def main(data: shared.Data | None = None, epochs: int = 8) -> dict[str, float]:
    data = shared.load() if data is None else data
    network, seconds = train(data, epochs=epochs)
    model = export_onnx(network, pairs(data, np.arange(3), np.arange(3)), outputs=list(HEADS))
    heads = rankers(model, data)

    train_events, test = data.split.train, data.split.test
    users, items = test.user_index, test.item_index
    stars = heads["stars"].score(users, items)
    biases = recfuse.AlternatingLeastSquares(
        8, objective="explicit", biases=True, regularization=5.0, random_state=0
    ).fit(train_events)
    known = biases.predict(users, items)

    likes = data.liked().test
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(data.product), len(likes))
    everyone, shown = np.tile(likes.user_index, 2), np.r_[likes.item_index, drawn]
    truth = np.arange(len(everyone)) < len(likes)
    counts = np.bincount(data.liked().train.item_index, minlength=len(data.product))
    liked = heads["liked"].score(everyone, shown)
    quality = {
        "AUC": auc(liked, truth),
        "AUC of popularity": auc(counts[shown], truth),
        "RMSE": rmse(stars, test.values),
        "RMSE of explicit ALS": rmse(known, test.values),
        "RMSE of the mean": rmse(np.full(len(test), train_events.values.mean()), test.values),
    }
    print(shared.table(["quality", ""], [[name, value] for name, value in quality.items()]))
    print(f"{data.name}: trained in {seconds:.0f} s; {len(model) / 1e3:.0f} kB")
    return quality


if __name__ == "__main__":
    main()
