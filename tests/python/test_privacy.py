"""Removal of users, thresholds on pairs, and no word to the outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse import _core
from recfuse.errors import NotFittedError
from recfuse.interactions import Interactions
from recfuse.privacy import forget_users, k_anonymous
from reference_als import Objective

N_USERS, N_ITEMS, GONE = 40, 25, [3, 17]


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = (rng.random((N_USERS, N_ITEMS)) < 0.3) * rng.integers(1, 6, (N_USERS, N_ITEMS))
    dense[3, :] = 5  # whose absence shows everywhere
    return sp.csr_array(dense.astype(np.float32))


def without(likes: sp.csr_array) -> sp.csr_array:
    dense = likes.toarray()
    dense[GONE] = 0
    return sp.csr_array(dense)


def items_and_users(n_users: int = N_USERS) -> tuple[dict, dict]:
    rng = np.random.default_rng(5)
    items = {"text": rng.normal(size=(N_ITEMS, 4)), "taste": rng.normal(size=(N_ITEMS, 3))}
    return items, {"taste": rng.normal(size=(n_users, 3))}


def multimodal() -> recfuse.MultimodalRecommender:
    behaviour = {
        "als": recfuse.AlternatingLeastSquares(3, random_state=1),
        "near": recfuse.ItemNeighbours(4, weighting="bm25"),
    }
    weights = {"als": 0.4, "near": 0.3, "text": 0.2, "taste": 0.1}
    return recfuse.MultimodalRecommender(behaviour, weights=weights)


MODELS = {
    "item neighbours": lambda: recfuse.ItemNeighbours(k=6),
    "bm25": lambda: recfuse.ItemNeighbours(k=6, weighting="bm25", min_support=2, shrinkage=3.0),
    "tfidf": lambda: recfuse.ItemNeighbours(k=6, weighting="tfidf", norm="corated"),
    "user neighbours": lambda: recfuse.UserNeighbours(k=4, weighting="tfidf", normalise=True),
    "popularity": lambda: recfuse.Popularity(by="values"),
    "als": lambda: recfuse.AlternatingLeastSquares(4, random_state=0, frequency_scaling=0.5),
    "explicit": lambda: recfuse.AlternatingLeastSquares(
        4, random_state=0, objective="explicit", biases=True, compute_loss=True
    ),
    "multimodal": multimodal,
}
NO_HISTORY = ("popularity", "als", "explicit")


def fitted(kind: str, likes: sp.csr_array) -> recfuse.ItemNeighbours:
    model = MODELS[kind]()
    if kind == "multimodal":
        items, users = items_and_users()
        if not likes[GONE].sum():
            users["taste"][GONE] = 0
        return model.fit(likes, items, users)
    return model.fit(likes)


def bytes_of(model, path: Path) -> bytes:
    model.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_without_a_user_is_one_that_never_saw_the_user(kind, likes, tmp_path):
    """The files are the same, byte for byte: nothing of the user is anywhere in them."""
    model = fitted(kind, likes)
    before = bytes_of(model, tmp_path / "a")
    history = {"user_items": likes} if kind in NO_HISTORY else {}
    other = forget_users(model, GONE, **history)
    assert type(other) is type(model)
    assert bytes_of(other, tmp_path / "b") == bytes_of(fitted(kind, without(likes)), tmp_path / "c")
    assert bytes_of(other, tmp_path / "b") != before
    assert bytes_of(model, tmp_path / "a") == before  # the old one is as it was
    ids, scores = other.recommend(GONE, k=3, user_items=likes[GONE])
    assert ids.shape == scores.shape == (2, 3)


@pytest.mark.parametrize("weighting", [None, "tfidf", "bm25"])
def test_similar_items_do_not_even_know_that_there_was_a_row(likes, weighting):
    model = recfuse.ItemNeighbours(k=6, weighting=weighting).fit(likes)
    rows = np.delete(np.arange(N_USERS), GONE)
    never = recfuse.ItemNeighbours(k=6, weighting=weighting).fit(likes[rows])
    similarity = forget_users(model, GONE).similarity_
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(
            getattr(similarity, part), getattr(never.similarity_, part), strict=True
        )


@pytest.mark.parametrize("kind", [*MODELS])
def test_a_labelled_model_loses_the_id_as_well(kind, likes, tmp_path):
    names = np.array([f"用户{n}" for n in range(N_USERS)], object)
    coo = likes.tocoo()

    def labelled(keep):
        chosen = np.isin(coo.row, keep)
        events = Interactions.from_arrays(
            names[coo.row[chosen]], coo.col[chosen], coo.data[chosen],
            user_labels=names[keep], item_labels=range(N_ITEMS),
        )  # fmt: skip
        options = {}
        if kind == "multimodal":
            items, users = items_and_users()
            options = {"items": items, "users": {"taste": users["taste"][keep]}}
        return recfuse.LabelledModel(MODELS[kind]()).fit(events, **options)

    rest = np.delete(np.arange(N_USERS), GONE)
    model = forget_users(labelled(np.arange(N_USERS)), ["用户3", "用户17"])
    content = bytes_of(model, tmp_path / "a")
    assert content == bytes_of(labelled(rest), tmp_path / "b")
    assert "用户17".encode() not in content
    with pytest.raises(KeyError, match="用户17"):
        model.recommend(["用户17"])


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
def test_iterations_from_the_factors_at_hand_are_those_of_als(likes, objective):
    """Against two half-steps of the specification, from the factors of the old model."""
    options = {"objective": objective, "regularization": 0.1}
    model = recfuse.AlternatingLeastSquares(
        4, random_state=0, solver="cholesky", biases=objective == "explicit", **options
    ).fit(likes)
    other = forget_users(model, GONE, user_items=likes, iterations=1)
    rule = Objective(**options, biases=objective == "explicit")
    history = without(likes)
    mean = rule.mean(history)
    users, user_biases = rule.half_step(history, model.item_factors_, model.item_biases_, mean)
    items, _ = rule.half_step(sp.csr_array(history.T), users, user_biases, mean)
    np.testing.assert_allclose(other.user_factors_, users, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.item_factors_, items, rtol=1e-5, atol=1e-5)
    assert not other.user_factors_[GONE].any()
    assert other.n_iter_ == 1


def test_more_iterations_come_to_the_minimum_of_a_fit_without_the_user(likes):
    settings = {"random_state": 0, "regularization": 5.0, "compute_loss": True, "iterations": 1500}
    model = recfuse.AlternatingLeastSquares(2, solver="cholesky", **settings).fit(likes)
    new = forget_users(model, GONE, user_items=likes)
    near = forget_users(model, GONE, user_items=likes, iterations=1500)
    assert near.loss_[-1] == pytest.approx(new.loss_[-1], rel=1e-6)
    assert near.loss_[0] > near.loss_[-1]


def test_an_unseeded_model_forgets_too(likes):
    model = recfuse.AlternatingLeastSquares(4).fit(likes)
    assert not forget_users(model, 3, user_items=likes).user_factors_[3].any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m, x: forget_users(m, [N_USERS]),
            IndexError,
            r"users must be in \[0, 40\); got 40",
        ),
        (lambda m, x: forget_users(m, [0.5]), TypeError, "users must be integers"),
        (
            lambda m, x: forget_users(m, [0], iterations=0),
            ValueError,
            "iterations must be at least",
        ),
        (lambda m, x: forget_users("m", [0]), TypeError, "model must be one whose .*; got str"),
        (
            lambda m, x: forget_users(m, [0], user_items=x[:3]),
            ValueError,
            r"user_items must have the shape of the fit \(40, 25\); got \(3, 25\)",
        ),
        (
            lambda m, x: forget_users(recfuse.Popularity().fit(x), [0]),
            ValueError,
            "user_items must be given for Popularity, which keeps no histories",
        ),
        (lambda m, x: forget_users(recfuse.ItemNeighbours(), [0]), NotFittedError, "fit must be"),
        (lambda m, x: k_anonymous(m.similarity_, x, 0), ValueError, "k must be at least 1; got 0"),
        (lambda m, x: k_anonymous([[1]], x, 2), TypeError, "similarity must be sparse; got list"),
        (lambda m, x: k_anonymous(sp.eye_array(3), x, 2), ValueError, "similarity must have shape"),
    ],
)
def test_wrong_arguments(likes, call, error, message):
    model = recfuse.ItemNeighbours(k=3).fit(likes)
    with pytest.raises(error, match=message):
        call(model, likes)


def co_users(likes: sp.csr_array) -> np.ndarray:
    has = (likes.toarray() != 0).astype(int)
    return has.T @ has


@pytest.mark.parametrize("k", [1, 2, 5, 8, 50])
@pytest.mark.parametrize("block", [1 << 24, 60])
def test_pairs_of_fewer_users_are_left_out(likes, k, block, monkeypatch):
    monkeypatch.setattr("recfuse.privacy.anonymity._BLOCK_ELEMENTS", block)
    similarity = recfuse.cosine_knn(likes.T, k=10)
    kept = k_anonymous(similarity, likes, k)
    expected = np.where(co_users(likes) >= k, similarity.toarray(), 0)
    np.testing.assert_array_equal(kept.toarray(), expected)
    for row in range(N_ITEMS):  # still best first
        part = slice(*kept.indptr[row : row + 2])
        assert (np.diff(kept.data[part]) <= 0).all()
    assert (k < 8) == (kept.nnz > 0) or k == 8


@pytest.mark.parametrize("k", [2, 5, 8])
def test_neighbours_hold_to_the_threshold_before_they_choose(likes, k):
    model = recfuse.ItemNeighbours(k=5, min_support=k).fit(likes)
    everything = recfuse.cosine_knn(likes.T, k=N_ITEMS)
    allowed = k_anonymous(everything, likes, k)
    for row in range(N_ITEMS):
        ours = slice(*model.similarity_.indptr[row : row + 2])
        part = slice(*allowed.indptr[row : row + 2])
        best = allowed.indices[part][:5]
        np.testing.assert_array_equal(model.similarity_.indices[ours], best)


SILENT = """
import sys
def listen(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.client", "smtplib.", "ftplib.", "ssl.")):
        raise SystemExit(f"{event} {arguments}")
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(listen)

import numpy as np, scipy.sparse as sp, recfuse, tempfile, os
from recfuse import evaluation, features, preprocess, privacy

rng = np.random.default_rng(0)
likes = sp.csr_array((rng.random((30, 20)) < 0.3).astype(np.float32))
text = rng.random((20, 4))
models = [
    recfuse.AlternatingLeastSquares(4, iterations=2),
    recfuse.ItemNeighbours(4), recfuse.UserNeighbours(4), recfuse.Popularity(),
]
for model in models:
    model.fit(likes).recommend([0, 1], k=3)
    path = os.path.join(tempfile.mkdtemp(), "model")
    model.save(path)
    recfuse.load(path).recommend([0], k=2)
    privacy.forget_users(model, [0], user_items=likes)
rec = recfuse.MultimodalRecommender().fit(likes, {"text": text})
rec.recommend([0, 1], k=3)
rec.explain(0, 1)
events = preprocess.EventReader(user="u", item="i").fit_transform({"u": ["a", "b"], "i": [1, 2]})
recfuse.LabelledModel(recfuse.ItemNeighbours()).fit(events).recommend(["a"])
preprocess.Pipeline([preprocess.Standardizer()]).fit(text)
preprocess.check(likes, {"text": text})
features.AttributeEncoder(["a"]).fit({"a": ["x", "y"]})
recfuse.doctor()
print("silent", "socket" in sys.argv)
if "socket" in sys.argv:
    import socket
    socket.create_connection(("127.0.0.1", 9))
"""


def run_silently(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SILENT, *arguments], capture_output=True, text=True, timeout=120
    )


def test_nothing_opens_a_connection_or_starts_a_program():
    done = run_silently()
    assert (done.stdout, done.stderr, done.returncode) == ("silent False\n", "", 0)


def test_the_listener_hears_connections():
    done = run_silently("socket")
    assert done.returncode == 1
    assert done.stderr.startswith("socket.")


@pytest.mark.parametrize("name", ["socket", "connect", "getaddrinfo", "sendto", "gethostbyname"])
def test_the_extension_has_no_function_of_the_network(name):
    """What Python's audit cannot hear: names that a library imports stand in its string table."""
    assert b"\0" + name.encode() + b"\0" not in Path(_core.__file__).read_bytes()
