"""What nobody should pass, and what people pass all the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse import _core


def broken(form: str, **parts: object) -> sp.sparray:
    """A sparse matrix (3, 12) whose parts SciPy has not seen together."""
    dense = np.zeros((3, 12), np.float32)
    dense[[0, 0, 1, 2], [1, 3, 1, 2]] = 1
    matrix = getattr(sp, f"{form}_array")(dense)
    for name, value in parts.items():
        setattr(matrix, name, value)
    return matrix


FAR = 10**9


@pytest.mark.parametrize(
    ("form", "parts", "message"),
    [
        ("csc", {"indices": np.array([0, 1, 2, FAR])}, r"row indices in \[0, 3\); got 1000000000"),
        ("csc", {"indices": np.array([0, 1, 2, -1])}, r"row indices in \[0, 3\); got -1"),
        ("csc", {"indptr": np.arange(13) * FAR}, "one index and one value per entry"),
        ("csc", {"indptr": np.array([0, 4])}, "indptr of 13 entries; got 2"),
        (
            "bsr",
            {"indices": np.array([0, 1, 2, FAR])},
            r"block column indices in \[0, 12\); got 10",
        ),
        (
            "coo",
            {"coords": (np.array([0, 0, 1, FAR]), np.array([1, 3, 1, 2]))},
            r"row indices in \[0, 3\); got 1000000000",
        ),
        (
            "coo",
            {"coords": (np.array([0, 0, 1, 2]), np.array([1, 3, 1, -2]))},
            r"column indices in \[0, 12\); got -2",
        ),
        ("coo", {"data": np.ones(1, np.float32)}, r"one row index per value \(1\); got 4"),
    ],
)
def test_no_sparse_format_is_converted_unseen(form, parts, message, rng):
    """SciPy's conversions trust the indices: a wrong one writes outside the arrays."""
    queries, items = normal(rng, 3, 5), normal(rng, 12, 5)
    with pytest.raises(ValueError, match=message):
        recfuse.topk(queries, items, 3, exclude=broken(form, **parts))


CANONICAL = ([0, 2, 2, 4], [1, 3, 0, 11])


@pytest.mark.parametrize(
    ("indptr", "indices", "usable"),
    [
        (*CANONICAL, True),
        ([0, 2, 2, 3], [1, 3, 0, FAR], True),  # behind the last row is nobody's
        ([1, 2, 2, 4], [1, 3, 0, 11], False),
        ([0, 2, 1, 4], [1, 3, 0, 11], False),
        ([0, 2, -1, 4], [1, 3, 0, 11], False),
        ([0, 2, 2, 5], [1, 3, 0, 11], False),
        ([0, FAR, 2, 4], [1, 3, 0, 11], False),
        ([0, 2, 2], [1, 3, 0, 11], False),
        ([0, 2, 2, 4, 4], [1, 3, 0, 11], False),
        ([], [], False),
        (CANONICAL[0], [1, 3, 0, 12], False),
        (CANONICAL[0], [-1, 3, 0, 11], False),
        (CANONICAL[0], [3, 1, 0, 11], False),
        (CANONICAL[0], [1, 1, 0, 11], False),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_one_pass_tells_what_must_not_be_trusted(indptr, indices, usable, dtype):
    arrays = np.array(indptr, dtype), np.array(indices, dtype)
    assert _core.is_canonical_csr(*arrays, (3, 12)) == usable


def test_row_starts_and_columns_of_two_types_are_told_apart():
    """SciPy makes no such matrix, but takes attributes that do."""
    indptr, indices = np.array(CANONICAL[0], np.int64), np.array(CANONICAL[1], np.int32)
    assert not _core.is_canonical_csr(indptr, indices, (3, 12))
    assert not _core.is_canonical_csr(indptr.astype(float), indices.astype(float), (3, 12))
    assert not _core.is_canonical_csr(np.repeat(indptr, 2)[::2], indices.astype(np.int64), (3, 12))
    matrix = broken("csr", indptr=indptr, indices=indices)
    assert recfuse.topk(np.eye(3), np.ones((12, 3)), 12, exclude=matrix)[0][2].tolist()[-2:] == [
        -1,
        -1,
    ]


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "lil", "dok"])
def test_every_sparse_format_filters_the_same(form, rng):
    queries, items = normal(rng, 3, 5), normal(rng, 12, 5)
    expected = recfuse.topk(queries, items, 9, exclude=broken("csr"))
    assert_same_bytes(recfuse.topk(queries, items, 9, exclude=broken(form)), expected)


def test_masked_arrays_are_refused(rng):
    items = normal(rng, 4, 3)
    masked = np.ma.masked_array(items, items > 0)
    with pytest.raises(TypeError, match="items must not be masked; got MaskedArray"):
        recfuse.topk(items, masked, 1)
    with pytest.raises(TypeError, match="allow must not be masked"):
        recfuse.topk(items, items, 1, allow=np.ma.masked_array([1, 2], [True, False]))


def test_ragged_rows_and_ids_beyond_int64_are_named(rng):
    items = normal(rng, 4, 2)
    with pytest.raises(ValueError, match="queries must have rows of one length; got list"):
        recfuse.topk([[1.0, 2.0], [1.0]], items, 1)
    with pytest.raises(IndexError, match="allow must be below 2\\*\\*63; got 9223372036854775808"):
        recfuse.topk(items, items, 1, allow=np.array([2**63], np.uint64))


def test_options_are_strings(rng):
    items = {"a": normal(rng, 4, 2)}
    for option in ("fusion", "missing", "metric"):
        with pytest.raises(TypeError, match=f"{option} must be a string; got None"):
            recfuse.fuse_topk(items, items, {"a": 1}, 2, **{option: None})
    with pytest.raises(TypeError, match="norm must be a string; got 1"):
        recfuse.cosine_knn(sp.csr_array(items["a"]), 1, norm=1)


def test_mappings_are_checked(rng):
    items = normal(rng, 4, 2)
    with pytest.raises(TypeError, match="items must have names of modalities as keys; got 1"):
        recfuse.FusedIndex({1: items})
    with pytest.raises(TypeError, match=r"present must be a mapping .* got ndarray"):
        recfuse.FusedIndex({"a": items}, present=np.ones(4, bool))


def test_a_change_of_an_index_names_what_does_not_fit(rng):
    index = recfuse.FusedIndex({"a": normal(rng, 4, 3), "b": normal(rng, 4, 2)})
    new = {"a": normal(rng, 2, 3), "b": normal(rng, 2, 2)}
    with pytest.raises(ValueError, match=r"items\['b'\] must have shape \(2, 2\); got \(2, 5\)"):
        index.add({**new, "b": normal(rng, 2, 5)})
    with pytest.raises(ValueError, match=r"items\['b'\] must have shape \(2, 2\); got \(1, 2\)"):
        index.add({**new, "b": normal(rng, 1, 2)})
    with pytest.raises(ValueError, match=r"items\['a'\] must have shape \(2, 3\); got \(2, 1\)"):
        index.update([0, 1], {**new, "a": normal(rng, 2, 1)})
    with pytest.raises(ValueError, match="update: ids must not repeat; got 1 twice"):
        index.update([1, 1], new)
    assert index.n_items == 4


def test_interactions_are_an_allow_list(rng):
    admitted = recfuse.Interactions.from_arrays([0, 1, 2, 2], [0, 1, 2, 3])
    queries, items = normal(rng, 3, 5), normal(rng, 4, 5)
    expected = recfuse.topk(queries, items, 3, allow=admitted.to_csr())
    assert_same_bytes(recfuse.topk(queries, items, 3, allow=admitted), expected)
