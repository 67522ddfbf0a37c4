"""Items and interactions in files larger than what may be allocated: the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import recfuse
from helpers import assert_same_bytes, normal, random_modalities, random_pattern
from memory import measure
from recfuse import _available, _inputs, _streamed


def mapped(folder, name, array, order="C"):
    """The array as a read-only map of a file."""
    file = np.lib.format.open_memmap(
        folder / f"{name}.npy", "w+", array.dtype, array.shape, fortran_order=order == "F"
    )
    file[...] = array
    file.flush()
    return np.load(folder / f"{name}.npy", mmap_mode="r")


# Private memory is limited to a part of the file; mapped pages, which can be reclaimed, are not.
SEARCH = """
n, dim = {shape}
with open({path!r}, "wb") as file:
    rng = np.random.default_rng(0)
    for _ in range(20):
        (rng.random((n // 20, dim), np.float32) - np.float32(0.5)).astype({dtype!r}).tofile(file)
items = np.memmap({path!r}, {dtype!r}, "r", shape=(n, dim))
queries = np.random.default_rng(1).random(({n_queries}, dim), np.float32) - np.float32(0.5)
recfuse.topk(queries, np.array(items[:2000]), 10)
limited = items.nbytes // {part}
limit_data(limited)
try:
    np.ones(2 * limited, np.uint8)
    raise SystemExit("nothing is limited")
except MemoryError:
    pass
got = {call}
limit_data(1 << 40)
items = np.array(items)
expected = {call}
same = all(g.tobytes() == e.tobytes() for g, e in zip(got, expected))
print(json.dumps([same, int(got[0].min()) >= 0, got[0].shape[1]]))
"""
TOPK = "recfuse.topk(queries, items, 10, num_threads=2)"
FUSED = "recfuse.fuse_topk(dict(a=queries), dict(a=items), dict(a=2.0), 10, num_threads=2)"
INDEX = "recfuse.FusedIndex(dict(a=items), num_threads=2).topk(dict(a=queries), 10)"


@pytest.mark.parametrize("n_queries", [1, 300])
@pytest.mark.parametrize("call", [TOPK, FUSED, INDEX])
def test_a_file_is_searched_in_place(tmp_path, call, n_queries):
    path, shape, dtype, part = str(tmp_path / "items"), (400_000, 64), "float32", 3
    assert measure(SEARCH.format(**locals())) == [True, True, 10]


@pytest.mark.parametrize("call", [TOPK, FUSED])
def test_a_file_of_another_type_is_converted_in_blocks(tmp_path, call):
    path, shape, dtype, part, n_queries = str(tmp_path / "items"), (300_000, 64), "float64", 2, 300
    code = SEARCH.replace("limit_data", "recfuse._streamed.BLOCK_BYTES = 1 << 24\nlimit_data")
    assert measure(code.format(**locals())) == [True, True, 10]


KEPT = """
recfuse.index._SMALL_BYTES = 0
rng = np.random.default_rng(0)
(rng.random((400_000, 64), np.float32) - np.float32(0.5)).tofile({path!r})
items = np.memmap({path!r}, np.float32, "r", shape=(400_000, 64))
queries = dict(a=rng.random(({n_queries}, 64), np.float32) - np.float32(0.5))
kept = recfuse.FusedIndex(dict(a=items))
expected = [kept.topk(queries, 10) for _ in range(4)][-1]
n_bytes = kept.plan()["rounded_bytes"]
del kept
limit_data(items.nbytes // 4)
index = recfuse.FusedIndex(dict(a=items))
got = [index.topk(queries, 10) for _ in range(4)][-1]
plan = index.plan()
print(json.dumps([
    all(g.tobytes() == e.tobytes() for g, e in zip(got, expected)),
    n_bytes >= items.nbytes // 4 or plan["screen"] == "float32",
    plan["rounded_bytes"],
    "too much of the memory" in plan["reason"] or plan["screen"] == "float32",
]))
"""


@pytest.mark.parametrize("n_queries", [20, 300])
def test_an_index_keeps_no_copy_that_takes_too_much(tmp_path, n_queries):
    assert measure(KEPT.format(path=str(tmp_path / "items"), n_queries=n_queries)) == [
        True,
        True,
        0,
        True,
    ]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_streamed, "BLOCK_BYTES", 4 * 9 * 7)
    calls = []
    best_of = _streamed.best_of
    monkeypatch.setattr(_streamed, "best_of", lambda *a, **k: calls.append(1) or best_of(*a, **k))
    yield
    assert len(calls) > 3


@pytest.mark.parametrize("dtype", ["float64", "int8", ">f4", "F"])
@pytest.mark.parametrize("k", [1, 6, 50, 80])
def test_blocks_give_the_same_bytes(rng, tmp_path, small_blocks, dtype, k):
    queries, items, weights = random_modalities(rng, (5, 9), n_queries=6, n_items=61)
    items = {m: np.round(x * 3) for m, x in items.items()}  # many ties
    if dtype == "F":
        files = {m: mapped(tmp_path, m, x, "F") for m, x in items.items()}
    else:
        files = {m: mapped(tmp_path, m, x.astype(dtype)) for m, x in items.items()}
    files["m0"] = mapped(tmp_path, "m0", items["m0"])  # one modality needs no conversion
    present = {"m1": rng.random(61) < 0.7}
    exclude, _ = random_pattern(rng, 6, 61, 0.2)
    allow, _ = random_pattern(rng, 6, 61, 0.6)
    for filters in ({}, {"exclude": exclude}, {"allow": allow}, {"allow": [3, 60, 17, 3]}):
        for fusion in ("sum", "max"):
            options = {"present": present, "fusion": fusion, **filters}
            expected = recfuse.fuse_topk(queries, items, weights, k, **options)
            assert_same_bytes(recfuse.fuse_topk(queries, files, weights, k, **options), expected)
        expected = recfuse.topk(queries["m1"], items["m1"], k, **filters)
        assert_same_bytes(recfuse.topk(queries["m1"], files["m1"], k, **filters), expected)


def test_a_score_of_minus_infinity_is_no_padding(tmp_path, small_blocks):
    items = np.zeros((60, 7))
    items[5], items[40] = -np.inf, -np.inf
    files = mapped(tmp_path, "a", items)
    allow = [5, 40, 41]
    expected = recfuse.topk(np.ones((2, 7)), items, 4, allow=allow)
    assert expected[0].tolist() == [[41, 5, 40, -1]] * 2
    assert_same_bytes(recfuse.topk(np.ones((2, 7)), files, 4, allow=allow), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"exclude": sp.csr_array((2, 50))}, ValueError, "topk: exclude must have a column per"),
        ({"allow": sp.csr_array((2, 62))}, ValueError, "topk: allow must have a column per item"),
        ({"allow": [3, 61]}, IndexError, r"topk: allow\[1\] must be in \[0, 61\); got 61"),
        ({"allow": [-1]}, IndexError, r"topk: allow\[0\] must be in \[0, 61\); got -1"),
    ],
)
def test_wrong_filters_of_blocks(rng, tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.setattr(_streamed, "BLOCK_BYTES", 100)
    files = mapped(tmp_path, "a", normal(rng, 61, 5).astype(np.float64))
    with pytest.raises(error, match=message):
        recfuse.topk(normal(rng, 2, 5), files, 3, **arguments)


def test_a_wrong_presence_of_blocks(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(_streamed, "BLOCK_BYTES", 100)
    items = {"a": mapped(tmp_path, "a", normal(rng, 61, 5).astype(np.float64))}
    with pytest.raises(ValueError, match=r"present\['a'\] must have shape \(61,\); got \(70,\)"):
        recfuse.fuse_topk(items, items, {"a": 1}, 3, present={"a": np.ones(70, bool)})


def test_what_must_be_copied_must_fit(rng, monkeypatch):
    monkeypatch.setattr(_inputs, "_UNASKED_BYTES", 0)
    monkeypatch.setattr(_inputs, "available_bytes", lambda: 1000)
    items = normal(rng, 100, 5)
    recfuse.FusedIndex({"a": items})
    with pytest.raises(MemoryError, match=r"items\['a'\] must be C-contiguous float32, .*; got fl"):
        recfuse.FusedIndex({"a": items.astype(np.float64)})
    with pytest.raises(MemoryError, match="2,000 bytes"):
        recfuse.FusedIndex({"a": np.asfortranarray(items)})


def test_csr_in_files_is_used_in_place(rng, tmp_path):
    matrix, _ = random_pattern(rng, 40, 30, 0.3)
    names = ("data", "indices", "indptr")
    files = [mapped(tmp_path, name, getattr(matrix, name)) for name in names]
    in_files = sp.csr_array(tuple(files), shape=matrix.shape)
    _, indices, _, values = _inputs.csr_parts(_inputs.as_csr(in_files, "matrix"))
    assert np.shares_memory(indices, files[1])
    assert np.shares_memory(values, files[0])
    got, expected = (recfuse.cosine_knn(m, 5) for m in (in_files, matrix))
    assert_same_bytes(*((m.data, m.indices, m.indptr) for m in (got, expected)))
    models = [
        recfuse.AlternatingLeastSquares(4, iterations=2, random_state=0).fit(m)
        for m in (in_files, matrix)
    ]
    assert_same_bytes(*((m.user_factors_, m.item_factors_) for m in models))


# What was planned, and no room for a copy of the file: 8 bytes an entry.
SPARSE = """
import scipy.sparse as sp
rows, per_row = 50_000, 120
starts = np.arange(rows) * 53 % ({cols} - 7 * per_row)
indices = (np.arange(per_row) * 7 + starts[:, None]).astype(np.int32)
np.ones(indices.size, np.float32).tofile({folder!r} + "/values")
indices.tofile({folder!r} + "/indices")
indptr = np.arange(0, indices.size + 1, per_row, dtype=np.int32)
files = [
    np.memmap({folder!r} + "/" + name, dtype, "r")
    for name, dtype in (("values", np.float32), ("indices", np.int32))
]
matrix = sp.csr_array((*files, indptr), shape=(rows, {cols}))
sizes = dict(nnz=indices.size, num_threads=1)
del indices, starts
als = recfuse.AlternatingLeastSquares(8, iterations=1, num_threads=1)
als.fit(matrix[:50])
recfuse.cosine_knn(matrix[:50], 1)
plan = recfuse.plan_memory({op!r}, **sizes, **{more})
assert plan.input_bytes > 47_000_000
limit_data(plan.peak_bytes + 16_000_000)
result = {call}
print(json.dumps(True))
"""


@pytest.mark.parametrize(
    ("op", "cols", "more", "call"),
    [
        ("als", 1000, {"n_users": 50_000, "n_items": 1000, "factors": 8}, "als.fit(matrix)"),
        (
            "cosine_knn",
            2_000_000,  # short columns
            {"n_rows": 50_000, "n_cols": 2_000_000, "k": 1, "values": "ones"},
            "recfuse.cosine_knn(matrix, 1, num_threads=1)",
        ),
    ],
)
def test_interactions_in_a_file_are_not_copied(tmp_path, op, cols, more, call):
    assert measure(SPARSE.format(folder=str(tmp_path), op=op, cols=cols, more=more, call=call))


@given(st.data())
def test_blocks_of_any_size(data):
    n_items, dim = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 4))
    values = st.integers(-2, 2).map(float)
    items = data.draw(npst.arrays(np.float64, (n_items, dim), elements=values))
    queries = data.draw(npst.arrays(np.float64, (3, dim), elements=values))
    k, rows = data.draw(st.integers(1, 45)), data.draw(st.integers(1, n_items - 1))
    allow = data.draw(st.none() | st.lists(st.integers(0, n_items - 1), max_size=20))
    expected = recfuse.topk(queries, items, k, allow=allow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_streamed, "BLOCK_BYTES", 4 * dim * rows)
        patch.setattr(_streamed, "_is_mapped", lambda _: True)
        assert_same_bytes(recfuse.topk(queries, items, k, allow=allow), expected)


def test_available_bytes(tmp_path):
    assert 1 << 20 < _available.available_bytes() < 1 << 50
    assert _available._of_cgroup(tmp_path) > 1 << 60  # no limit known
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    assert _available._of_cgroup(tmp_path) == 2000
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 400\n")
    assert _available._of_cgroup(tmp_path) == 2400
    (tmp_path / "memory.max").write_text("max\n")
    assert _available._of_cgroup(tmp_path) > 1 << 60
    limited = measure("""
    from recfuse._available import available_bytes
    limit_data(50 << 20)
    print(json.dumps(available_bytes()))
    """)
    assert 40 << 20 < limited <= 50 << 20
