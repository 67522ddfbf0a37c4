"""What the recipes have in common: data, layers, training, augmentation, a table at the end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from recfuse.datasets import movielens_100k, synthetic
from recfuse.errors import DatasetError
from recfuse.evaluation import Split, user_time_split
from recfuse.features import AttributeEncoder

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Data:
    """Ratings split by time, with what is known of people and films; row = user or item id."""

    name: str
    split: Split  # ratings from 1 to 5
    profile: Array  # (n_users, width), float32: age, gender, occupation
    product: Array  # (n_items, width), float32: genres, country, year
    content: Array  # (n_items, width), float32: words of the description

    def liked(self) -> Split:
        """Return the ratings of 4 and 5 alone."""
        split = self.split
        return Split(split.train.at_least(4), split.test.at_least(4), split.name)

    def histories(self) -> Array:
        """Return what everybody liked in training, 1 where it is, of shape (n_users, n_items)."""
        return (self.liked().train.to_csr().toarray() > 0).astype(np.float32)


def load(generated: bool = False) -> Data:
    """Return MovieLens 100k, or generated data if wanted or where MovieLens is out of reach."""
    if not generated:
        try:
            return _movielens()
        except DatasetError as error:
            print(f"generated data, for {error}")
    drawn = synthetic(300, 200, 12_000, random_state=0, n_topics=6)
    profile = drawn.user_topics + np.random.default_rng(0).normal(0, 0.1, drawn.user_topics.shape)
    split = user_time_split(drawn.interactions, test_fraction=0.2)
    items = drawn.items
    return Data("generated", split, profile.astype(np.float32), items["image"], items["text"])


def _movielens() -> Data:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    films = (data := movielens_100k()).items
    people = {name: list(getattr(data.users, name)) for name in ("age", "gender", "occupation")}
    kinds = {"age": "numeric", "gender": "categorical", "occupation": "categorical"}
    attributes = {"genres": list(films.genres), "country": list(films.country)}
    attributes["year"] = [int(year) if year else None for year in films.year]
    words = TfidfVectorizer(min_df=2, sublinear_tf=True).fit_transform(films.sentences(n_cast=5))
    return Data(
        "MovieLens 100k",
        user_time_split(data.interactions, test_fraction=0.2),
        AttributeEncoder(kinds).fit_transform(people),
        AttributeEncoder(list(attributes), dim=48, min_count=2).fit_transform(attributes),
        TruncatedSVD(128, random_state=0).fit_transform(words).astype(np.float32),
    )


def tower(*widths: int) -> nn.Sequential:
    """Return linear layers with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def tensors(*arrays: Array) -> tuple[torch.Tensor, ...]:
    """Return copies: PyTorch cannot say that an array is read-only."""
    return tuple(torch.tensor(array) for array in arrays)


def batches(n: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the rows of one epoch in random order, `size` at a time."""
    yield from torch.randperm(n, generator=torch.Generator().manual_seed(seed)).split(size)


def fit(
    network: nn.Module,
    n_rows: int,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    *,
    epochs: int,
    batch_size: int = 512,
    rate: float = 1e-3,
    decay: float = 0.0,
) -> float:
    """Minimise ``loss_of(rows)`` by AdamW; print the loss of every epoch, return the seconds.

    Ctrl-C ends the training after the present batch and keeps what was learned.
    """
    torch.set_num_threads(1)  # networks this small lose more by waiting for threads than they gain
    started = time.perf_counter()
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    network.train()
    try:
        for epoch in range(epochs):
            total = 0.0
            for rows in batches(n_rows, batch_size, seed=epoch):
                optimiser.zero_grad()
                loss = loss_of(rows)
                loss.backward()
                optimiser.step()
                total += loss.item() * len(rows)
            print(f"epoch {epoch + 1:2d} of {epochs}, loss {total / n_rows:.4f}", flush=True)
    except KeyboardInterrupt:
        print("stopped; going on with what was learned")
    network.eval()
    return time.perf_counter() - started


def in_batch_softmax(
    scores: torch.Tensor, items: torch.Tensor, log_popularity: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of each row's own item against those of the batch.

    Popular items are in many batches; their frequency is taken off the scores again [1]_. An item
    that is in the batch twice is no wrong answer for its other row.

    References
    ----------
    .. [1] X. Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
       recommendations", RecSys 2019.
    """
    same = items[:, None] == items[None, :]
    other = same & ~torch.eye(len(items), dtype=torch.bool)
    logits = (scores - log_popularity[items]).masked_fill(other, -torch.inf)
    return nn.functional.cross_entropy(logits, torch.arange(len(items)))


def drop_items(histories: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Forget a random share of every history: what a newer user would look like."""
    keep = torch.rand(histories.shape, generator=generator) >= share
    return histories * keep


def drop_modalities(
    modalities: list[torch.Tensor], share: float, generator: torch.Generator
) -> list[torch.Tensor]:
    """Zero one modality of a random share of the rows: every one learns to stand alone."""
    rows = len(modalities[0])
    dropped = torch.rand(rows, generator=generator) < share
    which = torch.randint(len(modalities), (rows,), generator=generator)
    return [
        vectors.masked_fill((dropped & (which == m))[:, None], 0.0)
        for m, vectors in enumerate(modalities)
    ]


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Return the rows in columns; floats with four digits after the point."""
    cells = [[f"{c:.4f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(len(row[c]) for row in [header, *cells]) for c in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if c == 0 else cell.rjust(w)
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *cells]
    ]
    return "\n".join(lines)
