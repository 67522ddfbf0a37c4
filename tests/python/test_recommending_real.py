"""What friends and content give users and items without a past, on real data."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.fusion.importance import ndcg_of_lists


def paired(found: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean difference over users, and its standard error."""
    difference = found - other
    return difference.mean(), difference.std(ddof=1) / np.sqrt(len(difference))


def test_friends_beat_popularity_on_lastfm(data_dir):
    folder = data_dir / "lastfm-hetrec2011"
    if not folder.exists():
        pytest.skip(f"no {folder}")
    with np.load(folder / "lastfm.npz") as data:
        users, user = np.unique(data["listen_user"], return_inverse=True)
        _, artist = np.unique(data["listen_artist"], return_inverse=True)
        values = np.log1p(data["listen_count"]).astype(np.float32)
        ends = [np.searchsorted(users, data[name]) for name in ("friend_a", "friend_b")]
    plays = sp.csr_array((values, (user, artist)))
    friends = sp.csr_array((np.ones(len(ends[0])), tuple(ends)), shape=(len(users), len(users)))
    rng = np.random.default_rng(0)
    is_cold = rng.random(len(users)) < 0.2
    warm = np.flatnonzero(~is_cold)
    known = friends[:, warm]
    cold = np.flatnonzero(is_cold & (np.diff(known.indptr) > 0))[:200]
    model = recfuse.MultimodalRecommender(
        {
            "als": recfuse.AlternatingLeastSquares(factors=32, regularization=1.0, random_state=0),
            "neighbours": recfuse.ItemNeighbours(k=50),
        },
        weights={"als": 0.5, "neighbours": 0.5, "popularity": 0.2},
    ).fit(plays[warm])
    truth = plays[cold]
    few = sp.csr_array(truth.multiply(rng.random(truth.shape) < 0.05))  # two or three artists
    few.eliminate_zeros()
    rest = sp.csr_array(truth - few)
    rest.eliminate_zeros()
    like = known[cold]

    def ndcg(*args, **options):
        return ndcg_of_lists(model.recommend_new_users(*args, k=20, **options)[0], rest)

    nothing = sp.csr_array(truth.shape, dtype=np.float32)
    found = {
        "nothing": ndcg(nothing, exclude=few),
        "friends": ndcg(like=like, exclude=few),
        "events": ndcg(few),
        "both": ndcg(few, like=like),
    }
    for better, worse in (("friends", "nothing"), ("both", "events"), ("both", "friends")):
        gain, error = paired(found[better], found[worse])
        assert gain > 2 * error, (better, worse, gain, error)


def test_content_finds_listeners_for_cold_films(data_dir):
    folder = data_dir / "movielens-latest-small"
    features = data_dir / "movielens-content-features" / "text_minilm.npz"
    if not (folder.exists() and features.exists()):
        pytest.skip(f"no {folder} or no {features}")
    with gzip.open(folder / "ratings.csv.gz", "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", skiprows=1)
    table = table[table[:, 2] >= 4]
    films, film = np.unique(table[:, 1].astype(int), return_inverse=True)
    _, user = np.unique(table[:, 0], return_inverse=True)
    likes = sp.csr_array((np.ones(len(film), np.float32), (user, film)))
    with np.load(features) as data:
        at = np.searchsorted(data["movie_id"], films)
        at = np.minimum(at, len(data["movie_id"]) - 1)
        text = data["embedding"][at].astype(np.float32)
        text[data["movie_id"][at] != films] = 0
    rng = np.random.default_rng(0)
    is_cold = rng.random(len(films)) < 0.2
    cold = np.flatnonzero(is_cold)
    warm = sp.csr_array(likes @ sp.diags_array((~is_cold).astype(np.float32)))
    warm.eliminate_zeros()
    test = sp.csr_array(likes @ sp.diags_array(is_cold.astype(np.float32)))
    test.eliminate_zeros()
    users = np.flatnonzero((np.diff(test.indptr) > 0) & (np.diff(warm.indptr) > 0))
    als = recfuse.AlternatingLeastSquares(factors=32, regularization=1.0, random_state=0)
    model = recfuse.MultimodalRecommender(
        {"als": als}, weights={"als": 1.0, "text": 0.5}, cold_items=5.0
    ).fit(warm, {"text": text})
    relevant = test[users]

    def ndcg(weights):
        return ndcg_of_lists(model.recommend(users, 10, allow=cold, weights=weights)[0], relevant)

    found = {
        "chance": ndcg_of_lists(
            np.stack([rng.permutation(cold)[:10] for _ in users]), relevant
        ),
        "text": ndcg({"text": 1.0}),
        "map": ndcg({"als": 1.0}),
        "both": ndcg(model.weights_),
    }  # fmt: skip
    for better, worse in (("text", "chance"), ("map", "text"), ("both", "text")):
        gain, error = paired(found[better], found[worse])
        assert gain > 2 * error, (better, worse, gain, error)
