"""Last.fm (HetRec 2011): artists of everybody, and of newcomers by friends and by tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from contenders import contenders
from movielens import als_of_newcomers
from newcomers import People, Variant, newcomers
from search import Budget, Notes
from study import FUSION, Parts, fused, judge, rows, tune_all

from recfuse.evaluation import user_time_split
from recfuse.interactions import Interactions

__all__ = ["run"]

BUDGET = Budget()
FIRST, KNOWN = 5, (0, 1, 3, 5)
TAG_FACTORS = 64
VARIANTS = {
    "behaviour": Variant(),
    "+ tags": Variant(("tags",)),
    "+ friends": Variant((), ("friends",)),
    "+ friends and tags": Variant(("tags",), ("friends",)),
}


def run(folder: Path, notes: Notes, tuned: dict[str, Any] | None) -> dict[str, Any]:
    """Tune where nothing is tuned yet, and look at the tests."""
    with np.load(folder / "lastfm-hetrec2011" / "lastfm.npz") as file:
        data = dict(file)
    # A list without times: those at random make the last events of a user some at random.
    events = Interactions.from_arrays(
        data["listen_user"],
        data["listen_artist"],
        np.log1p(data["listen_count"]).astype(np.float32),
        np.random.default_rng(0).permutation(len(data["listen_user"])),
    )
    outer = user_time_split(events, test_fraction=0.2)
    inner = user_time_split(outer.train, test_fraction=0.2)
    matrices = (inner.train, inner.test, outer.train, outer.test)
    parts = Parts(*(part.to_csr() for part in matrices))
    field = contenders(sizes=(32, 64, 128))
    chosen = (tuned or {}).get("everybody") or tune_all(
        field, parts, notes, budget=BUDGET, graded=True
    )
    results, weights = {}, {}
    results[FUSION], weights[FUSION] = fused(FUSION, field, chosen, parts, notes)
    results |= judge(field, chosen, parts, notes)
    people = _people(events, data, chosen)
    fresh = newcomers(people, VARIANTS, notes, (tuned or {}).get("newcomers"))
    friends = people.sources(np.arange(events.n_users), np.arange(events.n_users))["friends"]
    return {
        "split": "a fifth of every user's artists, drawn at random; all of them are relevant",
        "sizes": {
            "users": events.n_users,
            "items": events.n_items,
            "events": len(events),
            "friendships": friends.nnz // 2,
            "tags": len(data["tag_user"]),
        },
        "budget": BUDGET.trials,
        "tuned": {"everybody": chosen, "newcomers": fresh["tuned"]},
        "fusion": weights,
        "results": rows(results, against=FUSION),
        "newcomers": fresh["results"],
    }


def _people(events: Interactions, data: dict[str, Any], chosen: dict[str, Any]) -> People:
    """Return everybody as a newcomer: known by artists at random, asked for those after five."""
    order = np.lexsort((events.timestamps, events.user_index))
    counts = np.bincount(events.user_index, minlength=events.n_users)
    rank = np.empty(len(events), np.int64)
    rank[order] = np.arange(len(events)) - np.repeat(np.cumsum(counts) - counts, counts)
    position = {int(label): n for n, label in enumerate(events.users)}
    ends = [
        np.array([position.get(int(u), -1) for u in data[name]])
        for name in ("friend_a", "friend_b")
    ]
    both = (ends[0] >= 0) & (ends[1] >= 0)
    pairs = (np.ones(both.sum(), np.float32), (ends[0][both], ends[1][both]))
    friends = sp.csr_array(pairs, shape=(events.n_users, events.n_users))
    tagger = np.array([position.get(int(u), -1) for u in data["tag_user"]])

    def content(warm: Any) -> dict[str, Any]:
        # What newcomers tagged would tell what they listen to.
        mine = np.isin(tagger, warm)
        return {"tags": _tags(events, data["tag_artist"][mine], data["tag_id"][mine])}

    return People(
        history=events.to_csr(),
        known={n: events.select(rank < n).to_csr() for n in KNOWN},
        hidden=events.select(rank < FIRST).to_csr(),
        truth=events.select(rank >= FIRST).to_csr(),
        content=content,
        sources=lambda users, warm: {"friends": friends[users][:, warm]},
        als=als_of_newcomers(chosen),
        neighbours=None,  # what friends lend is long, and their neighbours the whole catalogue
    )


def _tags(events: Interactions, artists: Any, tags: Any) -> Any:
    """Return tf-idf of the tags of every artist, by its leading singular vectors."""
    from scipy.sparse.linalg import svds

    position = {int(label): n for n, label in enumerate(events.items)}
    row = np.array([position.get(int(a), -1) for a in artists])
    known = row >= 0
    _, column = np.unique(tags[known], return_inverse=True)
    counts = sp.csr_array(
        (np.ones(known.sum()), (row[known], column)), shape=(events.n_items, column.max() + 1)
    )
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    idf = np.log(events.n_items / np.bincount(counts.indices, minlength=counts.shape[1]))
    weighted = sp.csr_array(counts @ sp.diags_array(idf))
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    unit = sp.csr_array(sp.diags_array(1 / np.maximum(norms, 1e-12)) @ weighted)
    start = np.ones(min(unit.shape))
    left, values, _ = svds(unit, TAG_FACTORS, v0=start)
    return np.asarray(left * values, np.float32)
