"""The C library answers with the bytes of Python, and refuses what is wrong."""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import normal
from recfuse import storage
from recfuse.serving import Pipeline, Retriever

ROOT = Path(__file__).parents[2]
LIBRARY = Path(os.environ.get("RECFUSE_C_LIBRARY", ROOT / "build/cpp/cpp/librecfuse_c.so"))
OK, INVALID, OUT_OF_RANGE, UNKNOWN, BAD_FORMAT, IO_ERROR = range(6)
N_USERS, N_ITEMS, K = 30, 50, 6

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(), reason=f"{LIBRARY} is not built: make build-cpp, or set RECFUSE_C_LIBRARY"
)


class Query(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("k", c.c_int64),
        ("weights", c.c_void_p),
        ("n_weights", c.c_int64),
        ("exclude", c.c_void_p),
        ("n_exclude", c.c_int64),
        ("allow", c.c_void_p),
        ("n_allow", c.c_int64),
        ("include_seen", c.c_int32),
        ("num_threads", c.c_int32),
    )


class CModel:
    """A model through the C library."""

    def __init__(self, path: Path, verify: int = 0) -> None:
        self.lib = c.CDLL(str(LIBRARY))
        self.lib.recfuse_last_error.restype = c.c_char_p
        self.handle = c.c_void_p()
        self.status = self.lib.recfuse_model_open(os.fsencode(path), verify, c.byref(self.handle))
        self.message = self.lib.recfuse_last_error().decode()

    def __del__(self) -> None:
        self.lib.recfuse_model_close(self.handle)

    def asked(self, function: str, *args: Any, n: int, k: int = K, **query: Any) -> Any:
        """Return ids and scores of a request; the status and the message where it is refused."""
        arrays = {
            name: np.ascontiguousarray(query.pop(name), dtype)
            for name, dtype in (("weights", "f8"), ("exclude", "i4"), ("allow", "i4"))
            if name in query
        }
        options = Query(struct_size=c.sizeof(Query), k=k, **query)
        for name, array in arrays.items():
            setattr(options, name, array.ctypes.data or 1)
            setattr(options, f"n_{name}", len(array))
        ids, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
        out = (c.c_void_p(ids.ctypes.data), c.c_void_p(scores.ctypes.data))
        status = getattr(self.lib, function)(self.handle, *args, c.byref(options), *out)
        if status != OK:
            return status, self.lib.recfuse_last_error().decode()
        return ids, scores

    def recommend(self, users: Any, **query: Any) -> Any:
        rows = np.ascontiguousarray(users, np.int64)
        args = (c.c_void_p(rows.ctypes.data), c.c_int64(len(rows)))
        return self.asked("recfuse_recommend", *args, n=len(rows), **query)

    def similar(self, items: Any, **query: Any) -> Any:
        rows = np.ascontiguousarray(items, np.int64)
        args = (c.c_void_p(rows.ctypes.data), c.c_int64(len(rows)))
        return self.asked("recfuse_similar", *args, n=len(rows), **query)

    def search(self, vectors: list[Any], n: int, **query: Any) -> Any:
        matrices = [None if v is None else np.ascontiguousarray(v, np.float32) for v in vectors]
        pointers = (c.c_void_p * len(matrices))(
            *[None if m is None else m.ctypes.data for m in matrices]
        )
        args = (pointers, c.c_int64(len(matrices)), c.c_int64(n))
        return self.asked("recfuse_search", *args, n=n, **query)

    def row(self, side: str, label: Any) -> int | None:
        row = c.c_int64()
        if isinstance(label, int):
            function = getattr(self.lib, f"recfuse_{side}_row_of_integer")
            status = function(self.handle, c.c_int64(label), c.byref(row))
        else:
            text = label.encode()
            function = getattr(self.lib, f"recfuse_{side}_row")
            status = function(self.handle, text, c.c_size_t(len(text)), c.byref(row))
        assert status in (OK, UNKNOWN)
        return row.value if status == OK else None

    def text(self, side: str, row: int) -> str:
        buffer, length = c.create_string_buffer(200), c.c_size_t()
        function = getattr(self.lib, f"recfuse_{side}_id")
        assert function(self.handle, c.c_int64(row), buffer, c.c_size_t(200), c.byref(length)) == OK
        assert length.value == len(buffer.value)
        return buffer.value.decode()


def likes_of(rng) -> sp.csr_array:
    dense = rng.random((N_USERS, N_ITEMS)) < 0.2
    dense[:, 45:] = False
    dense[3] = False
    return sp.csr_array(dense.astype(np.float32))


def als(**options: Any) -> recfuse.AlternatingLeastSquares:
    return recfuse.AlternatingLeastSquares(factors=5, iterations=2, random_state=1, **options)


def labelled(rng) -> recfuse.LabelledModel:
    rows, columns = likes_of(rng).nonzero()
    events = recfuse.Interactions.from_arrays(
        [f"用户{row}" for row in rows], [1000 - int(column) for column in columns]
    )
    return recfuse.LabelledModel(als()).fit(events)


def multimodal(rng) -> recfuse.MultimodalRecommender:
    image = normal(rng, N_ITEMS, 4)
    image[::3] = 0
    weights = {"als": 0.4, "text": 0.3, "image": 0.2, "popularity": 0.1}
    model = recfuse.MultimodalRecommender({"als": als()}, weights=weights)
    model.fit(likes_of(rng), {"text": normal(rng, N_ITEMS, 6), "image": image})
    return model


def with_segments(rng) -> recfuse.MultimodalRecommender:
    model = multimodal(rng)
    model.user_weights_ = {name: rng.random(N_USERS) for name in model.modalities_}
    return model


def with_fallback(rng) -> recfuse.MultimodalRecommender:
    """User 3 has nothing: nobody's weight but that of the fallback speaks for it."""
    model = recfuse.MultimodalRecommender({"als": als()}, weights={"als": 0.5, "text": 0.5})
    return model.fit(likes_of(rng), {"text": normal(rng, N_ITEMS, 6)})


def where_missing_is_zero(rng) -> Pipeline:
    items = {"text": normal(rng, N_ITEMS, 6), "image": normal(rng, N_ITEMS, 3)}
    present = {"image": rng.random(N_ITEMS) < 0.5}
    return Pipeline(items, present=present, missing="zero", weights={"text": 0.3, "image": 0.7})


def index(rng) -> recfuse.FusedIndex:
    items = {"text": normal(rng, N_ITEMS, 6), "image": normal(rng, N_ITEMS, 3)}
    return recfuse.FusedIndex(items, present={"image": rng.random(N_ITEMS) < 0.5})


MAKERS = {
    "factors": lambda rng: als().fit(likes_of(rng)),
    "biases": lambda rng: als(objective="explicit", biases=True).fit(likes_of(rng)),
    "labelled": labelled,
    "multimodal": multimodal,
    "segments": with_segments,
    "fallback": with_fallback,
    "zero": where_missing_is_zero,
    "index": index,
}


@pytest.fixture(params=MAKERS)
def pair(request, rng, tmp_path) -> Iterator[tuple[Retriever, CModel]]:
    Retriever.from_model(MAKERS[request.param](rng)).save(tmp_path / "model")
    model = CModel(tmp_path / "model")
    assert model.status == OK, model.message
    yield Retriever.load(tmp_path / "model"), model


def rows_of(retriever: Retriever, lists: Any) -> tuple[Any, Any]:
    ids, scores = lists[:2]
    if ids.dtype == object:
        rows = [[-1 if i is None else int(retriever.item_rows([i])[0]) for i in r] for r in ids]
        ids = np.array(rows, np.int32)
    return ids, scores


def assert_same(retriever: Retriever, got: Any, expected: Any) -> None:
    for one, other in zip(got, rows_of(retriever, expected), strict=True):
        assert one.tobytes() == other.tobytes(), (one, other)


def test_recommendations_are_the_bytes_of_python(pair, rng):
    retriever, model = pair
    if retriever.n_users is None:
        assert model.recommend([0])[0] == INVALID
        return
    rows = rng.permutation(retriever.n_users)
    table = retriever._parts.user_ids
    users = rows if table is None else table.labels(rows).tolist()
    names = retriever.modalities
    weights = dict(zip(names, rng.random(len(names)), strict=True))
    exclude, allow = rng.choice(retriever.n_items, 5), rng.choice(retriever.n_items, 12)
    labels = retriever.item_labels
    assert_same(retriever, model.recommend(rows), retriever.recommend(users, K))
    assert_same(
        retriever,
        model.recommend(rows, weights=list(weights.values()), include_seen=1),
        retriever.recommend(users, K, weights=weights, exclude_seen=False),
    )
    assert_same(
        retriever,
        model.recommend(rows, exclude=exclude, allow=allow, k=20),
        retriever.recommend(users, 20, exclude=list(labels(exclude)), allow=list(labels(allow))),
    )
    assert_same(retriever, model.recommend(rows[:1]), retriever.recommend(users[:1], K))
    assert (model.recommend(rows, allow=[])[0] == -1).all()


def test_searches_are_the_bytes_of_python(pair, rng):
    retriever, model = pair
    vectors = {name: normal(rng, 4, dim) for name, dim in retriever.dims.items()}
    weights = dict(zip(vectors, rng.random(len(vectors)), strict=True))
    assert_same(retriever, model.search(list(vectors.values()), 4), retriever.search(vectors, K))
    assert_same(
        retriever,
        model.search(list(vectors.values()), 4, weights=list(weights.values())),
        retriever.search(vectors, K, weights=weights),
    )
    for name in vectors:
        alone = [v if name == other else None for other, v in vectors.items()]
        assert_same(retriever, model.search(alone, 4), retriever.search({name: vectors[name]}, K))


def test_similar_items_are_the_bytes_of_python(pair, rng):
    retriever, model = pair
    items = rng.choice(retriever.n_items, 9)
    labels = list(retriever.item_labels(items))
    assert_same(retriever, model.similar(items), retriever.similar(labels, K))
    exclude = list(retriever.item_labels(items[:3]))
    assert_same(
        retriever,
        model.similar(items, exclude=items[:3]),
        retriever.similar(labels, K, exclude=exclude),
    )


def test_popularity_is_the_same_in_c(rng, tmp_path):
    fitted = recfuse.Popularity().fit(likes_of(rng))
    fitted.save(tmp_path / "model")
    model, users = CModel(tmp_path / "model"), np.arange(N_USERS)
    for got, expected in zip(model.recommend(users), fitted.recommend(users, K), strict=True):
        assert got.tobytes() == expected.tobytes()
    message = "similar: model must have a modality by which items are alike; got none"
    assert model.similar([0]) == (INVALID, message)


def test_files_of_pipelines_are_those_of_their_models():
    """The golden ones; what is no search is not looked at, and a file without one says so."""
    folder = ROOT / "tests/data/model_files/v2"
    events = CModel(folder / "events.recfuse")
    assert events.status == OK, events.message
    users = ["ann", "eve"]
    expected = recfuse.load(folder / "events.recfuse").recommend(users, 3)
    ids, scores = events.recommend([events.row("user", user) for user in users], k=3)
    labels = [[None if i < 0 else int(events.text("item", i)) for i in row] for row in ids]
    assert labels == expected[0].tolist()
    assert scores.tolist() == expected[1].tolist()
    requests = CModel(folder / "requests.recfuse")
    vectors = recfuse.load(folder / "requests.recfuse").index._items
    first = {name: np.asarray(matrix)[:1] for name, matrix in vectors.items()}
    got = requests.search(list(first.values()), 1, k=3)
    expected = Retriever.load(folder / "requests.recfuse").search(first, 3)
    for one, other in zip(got, expected, strict=True):
        assert one.tobytes() == other.tobytes()
    assert CModel(folder / "shop.recfuse").status == BAD_FORMAT


def test_ids_go_both_ways(rng, tmp_path):
    fitted = labelled(rng)
    fitted.save(tmp_path / "model")
    model = CModel(tmp_path / "model")
    for row, user in enumerate(fitted.users_):
        assert model.row("user", user) == row
        assert model.text("user", row) == user
    for row, item in enumerate(fitted.items_.tolist()):
        assert model.row("item", item) == row
        assert model.text("item", row) == str(item)
    for unknown in ("", "用", "用户9999", "\0", 3):
        assert model.row("user", unknown) is None
    for unknown in (-1, 0, 2**63 - 1, -(2**63), "7"):
        assert model.row("item", unknown) is None


def test_ids_of_both_sides_are_text(tmp_path):
    events = recfuse.Interactions.from_arrays(["ann", "bo", "bo"], ["茶", "tea", "茶"])
    recfuse.LabelledModel(als()).fit(events).save(tmp_path / "model")
    model = CModel(tmp_path / "model")
    assert [model.row("user", text) for text in ("ann", "bo", "茶", "tea")] == [0, 1, None, None]
    assert [model.row("item", text) for text in ("ann", "bo", "茶", "tea")] == [None, None, 0, 1]
    assert [model.text("item", row) for row in (0, 1)] == ["茶", "tea"]


def test_as_much_is_verified_as_is_asked(rng, tmp_path):
    als().fit(likes_of(rng)).save(tmp_path / "model")
    damaged = bytearray((tmp_path / "model").read_bytes())
    damaged[-70] ^= 1
    (tmp_path / "model").write_bytes(damaged)
    small, whole, nothing = (CModel(tmp_path / "model", verify) for verify in range(3))
    assert small.status == whole.status == BAD_FORMAT
    assert nothing.status == OK
    assert nothing.lib.recfuse_model_verify(nothing.handle) == BAD_FORMAT


def test_what_is_wrong_is_refused(rng, tmp_path):
    assert CModel(tmp_path / "none").status == IO_ERROR
    assert CModel(tmp_path).status == IO_ERROR
    (tmp_path / "empty").write_bytes(b"")
    assert CModel(tmp_path / "empty").message.endswith("must be a recfuse file; got 0 bytes")
    storage.write(tmp_path / "other", {}, {})
    other = CModel(tmp_path / "other")
    assert other.status == BAD_FORMAT
    assert "must have a dense search; got a model without one" in other.message
    fitted = als().fit(likes_of(rng))
    fitted.save(tmp_path / "model")
    model = CModel(tmp_path / "model")
    assert model.recommend([N_USERS]) == (
        OUT_OF_RANGE,
        f"recommend: users must be in [0, {N_USERS}); got {N_USERS}",
    )
    assert model.recommend([-1])[0] == OUT_OF_RANGE
    assert model.recommend([0], exclude=[N_ITEMS])[0] == OUT_OF_RANGE
    assert model.recommend([0], allow=[-1])[0] == OUT_OF_RANGE
    assert model.recommend([0], weights=[1.0, 2.0])[0] == INVALID
    assert model.recommend([0], weights=[np.nan])[0] == INVALID
    assert model.recommend([0], weights=[])[0] == INVALID
    assert model.recommend([0], num_threads=-1)[0] == INVALID
    assert model.search([], 1)[0] == INVALID
    assert model.search([None], 1)[0] == INVALID
    assert model.similar([N_ITEMS])[0] == OUT_OF_RANGE
    model.recommend([0])
