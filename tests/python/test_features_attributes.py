from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfuse.errors import NotFittedError
from recfuse.features import AttributeEncoder

FILMS = {
    "genre": [["Comedy", "Drama"], "Comedy", ["喜剧", "Drama"], None, [], "Éclair", "Comedy"],
    "director": ["宮崎 駿", "Varda", "宮崎 駿", "", float("nan"), None, "Varda"],
    "year": [1995, 2001, None, float("nan"), None, 1960.5, 1995],
}
KINDS = {"genre": "categorical", "director": "categorical", "year": "numeric"}


def reference(items, kinds, *, weighting="idf", weights=None, min_count=1):
    """Specify the vectors by dictionaries and Python floats."""
    n = len(next(iter(items.values())))
    cells = {
        field: [c if isinstance(c, (list, tuple)) else [c] for c in items[field]]
        for field, kind in kinds.items()
        if kind == "categorical"
    }
    cells = {
        field: [[x for x in dict.fromkeys(c) if x is not None and x == x and x != ""] for c in rows]
        for field, rows in cells.items()
    }
    numbers = {
        field: [None if x is None or x != x else float(x) for x in items[field]]
        for field, kind in kinds.items()
        if kind == "numeric"
    }
    columns = []
    kept = {field: [] for field in cells}
    for field, rows in cells.items():
        count = {}
        for row in rows:
            for x in row:
                count[x] = count.get(x, 0) + 1
        kept[field] = sorted(
            (x for x in count if count[x] >= min_count), key=lambda x: (isinstance(x, str), x)
        )
        idf = {x: math.log((1 + n) / (1 + count[x])) + 1 for x in kept[field]}
        block = [
            [(idf[x] if weighting == "idf" else 1.0) * (x in row) for x in kept[field]]
            for row in rows
        ]
        norms = [math.sqrt(sum(v * v for v in row)) or 1.0 for row in block]
        w = math.sqrt((weights or {}).get(field, 1))
        columns += [
            [w * row[j] / s for row, s in zip(block, norms, strict=True)]
            for j in range(len(kept[field]))
        ]
    present = [
        any(set(rows[i]) & set(kept[f]) for f, rows in cells.items())
        or any(v[i] is not None for v in numbers.values())
        for i in range(n)
    ]
    for field, values in numbers.items():
        known = [v for v in values if v is not None]
        mean = sum(known) / len(known) if known else 0.0
        scale = math.sqrt(sum((v - mean) ** 2 for v in known) / len(known)) if known else 0.0
        w = math.sqrt((weights or {}).get(field, 1))
        columns.append([0.0 if v is None else w * (v - mean) / (scale or 1.0) for v in values])
        columns.append([w * (v is None and p) for v, p in zip(values, present, strict=True)])
    return np.array(columns, np.float64).reshape(len(columns), n).T, np.array(present, bool)


@pytest.mark.parametrize("weighting", ["idf", None])
@pytest.mark.parametrize("weights", [None, {"genre": 0.25, "year": 4}])
@pytest.mark.parametrize("min_count", [1, 2])
def test_vectors_match_the_reference(weighting, weights, min_count):
    options = {"weighting": weighting, "weights": weights, "min_count": min_count}
    encoder = AttributeEncoder(KINDS, **options).fit(FILMS)
    expected, present = reference(FILMS, KINDS, **options)
    vectors = encoder.transform(FILMS)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(vectors, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(encoder.present(FILMS), present)
    np.testing.assert_array_equal(encoder.fit_transform(FILMS), vectors)


categories = st.one_of(
    st.none(), st.lists(st.sampled_from(["a", "b", "\u00e9", "e\u0301", "中", 1]))
)
numbers = st.one_of(
    st.none(), st.integers(-1000, 1000), st.integers(-999, 999).map(lambda x: x / 8)
)


@given(st.lists(st.tuples(categories, categories, numbers), min_size=1, max_size=12))
def test_any_table_matches_the_reference(rows):
    table = dict(
        zip(("genre", "director", "year"), map(list, zip(*rows, strict=True)), strict=True)
    )
    encoder = AttributeEncoder(KINDS).fit(table)
    expected, present = reference(table, KINDS)
    np.testing.assert_allclose(encoder.transform(table), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(encoder.present(table), present)
    assert not np.any(encoder.transform(table)[~present])


def test_the_inner_product_is_the_weighted_sum_of_those_of_the_fields():
    weights = {"genre": 0.5, "director": 0.3, "year": 0.2}
    vectors = AttributeEncoder(KINDS, weights=weights).fit_transform(FILMS).astype(np.float64)
    parts = 0
    for field, weight in weights.items():
        one = AttributeEncoder({field: KINDS[field]}).fit_transform(FILMS).astype(np.float64)
        if field == "year":  # alone, an item without a year is no item at all
            one[:, 1] = (one[:, 0] == 0) & AttributeEncoder(KINDS).fit(FILMS).present(FILMS)
        parts = parts + weight * one @ one.T
    np.testing.assert_allclose(vectors @ vectors.T, parts, atol=1e-6)


def test_a_field_of_weight_zero_changes_no_inner_product():
    both = AttributeEncoder(["genre", "director"], weights={"director": 0}).fit_transform(FILMS)
    one = AttributeEncoder(["genre"]).fit_transform(FILMS)
    np.testing.assert_array_equal(both @ both.T, one @ one.T)


def test_rows_follow_a_permutation_of_the_items():
    order = [3, 1, 6, 0, 2, 5, 4]
    shuffled = {field: [cells[i] for i in order] for field, cells in FILMS.items()}
    a, b = AttributeEncoder(KINDS).fit(FILMS), AttributeEncoder(KINDS).fit(shuffled)
    assert a.categories_ == b.categories_
    np.testing.assert_allclose(a.transform(FILMS)[order], b.transform(shuffled), atol=1e-6)


def test_categories_are_integers_then_texts():
    table = {"tag": [["b", 10], ["a", 9, "é"], ["b"]]}
    assert AttributeEncoder(["tag"]).fit(table).categories_ == {"tag": [9, 10, "a", "b", "é"]}


def test_a_separator_splits_texts_and_strips_them():
    split = AttributeEncoder(["g"], separator="|").fit({"g": ["Comedy| Drama ||", "|", "Drama"]})
    lists = AttributeEncoder(["g"]).fit({"g": [["Comedy", "Drama"], [], ["Drama"]]})
    assert split.categories_ == lists.categories_ == {"g": ["Comedy", "Drama"]}
    text = {"g": ["Drama|Comedy|Drama"]}
    np.testing.assert_array_equal(
        split.transform(text), lists.transform({"g": [["Drama", "Comedy"]]})
    )
    assert lists.unknown(text) == {"g": 1}


def test_unknown_categories_are_left_out_and_counted():
    encoder = AttributeEncoder(KINDS).fit(FILMS)
    new = {
        "genre": [["Western", "Comedy", "Western"], ["Noir", "Western"], None],
        "director": ["Varda", "Nobody", "Nobody"],
        "year": [1995, None, None],
    }
    vectors = encoder.transform(new)
    known = encoder.transform({"genre": ["Comedy"], "director": ["Varda"], "year": [1995]})
    np.testing.assert_array_equal(vectors[:1], known)
    assert not vectors[1:].any()
    assert encoder.present(new).tolist() == [True, False, False]
    assert encoder.unknown(new) == {"genre": 3, "director": 2}
    assert encoder.unknown(FILMS) == {"genre": 0, "director": 0}


def test_numbers_are_standardised_and_a_missing_one_is_the_mean_with_a_mark():
    table = {"year": [1.0, 3.0, None, 3.0, 1.0], "g": ["a"] * 5}
    kinds = {"g": "categorical", "year": "numeric"}
    vectors = AttributeEncoder(kinds).fit_transform(table)
    np.testing.assert_allclose(vectors[:, 1], [-1, 1, 0, 1, -1])
    np.testing.assert_array_equal(vectors[:, 2], [0, 0, 1, 0, 0])
    np.testing.assert_allclose((vectors[:, 1:] ** 2).sum(axis=1).mean(), 1)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.1, 1e9 + 0.1, 1e-300])
def test_the_rounding_of_a_mean_is_no_deviation(value):
    table = {"year": [value] * 7 + [None]}
    vectors = AttributeEncoder({"year": "numeric"}).fit_transform(table)
    np.testing.assert_allclose(vectors, np.zeros((8, 2)), atol=1e-6)


def test_a_constant_number_is_zero():
    encoder = AttributeEncoder({"year": "numeric"}).fit({"year": [7, 7, 7]})
    np.testing.assert_array_equal(encoder.transform({"year": [7, 8]}), [[0, 0], [1, 0]])
    assert encoder.present({"year": [7, None]}).tolist() == [True, False]


def test_nothing_at_all():
    for n in (0, 3):
        table = {"g": [None] * n, "year": [None] * n}
        encoder = AttributeEncoder({"g": "categorical", "year": "numeric"}).fit(table)
        assert encoder.transform(table).shape == (n, 2)
        assert not encoder.transform(table).any()
        assert encoder.present(table).tolist() == [False] * n


def test_frames_and_arrow_give_what_lists_give():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    table = {
        "genre": [["Comedy", "Drama"], ["Comedy"], None],
        "director": ["Varda", None, "宮崎 駿"],
        "year": [1995, None, 2001],
    }
    encoder = AttributeEncoder(KINDS).fit(table)
    nullable = pandas.DataFrame(table).astype({"year": "Int64", "director": "string"})
    containers = {
        "pandas": pandas.DataFrame(table),
        "pandas nullable": nullable,
        "pandas categorical": pandas.DataFrame(table).astype({"director": "category"}),
        "polars": polars.DataFrame(table),
        "arrow": pyarrow.table(table),
        "arrays": {field: np.array([*cells, None], object)[:-1] for field, cells in table.items()},
        "tuples": {field: tuple(cells) for field, cells in table.items()},
        "sets": table | {"genre": [{"Drama", "Comedy"}, frozenset(["Comedy"]), set()]},
        "array cells": table
        | {"genre": [np.array(["Drama", "Comedy"]), np.array(["Comedy"]), None]},
        "floats": table | {"year": np.array([1995, np.nan, 2001], np.float32)},
    }
    for name, items in containers.items():
        for fitted in (encoder, AttributeEncoder(KINDS).fit(items)):
            np.testing.assert_array_equal(
                fitted.transform(items), encoder.transform(table), err_msg=name
            )
    for frame in (containers["pandas"], containers["polars"], containers["arrow"]):
        with pytest.raises(ValueError, match="the field 'cast'; got the fields"):
            AttributeEncoder(["cast"]).fit(frame)


# Reduction


def many(rng, n=60):
    people = [f"人{i}" for i in range(40)]
    return {
        "cast": [list(rng.choice(people, rng.integers(0, 6), replace=False)) for _ in range(n)],
        "year": list(rng.normal(2000, 10, n)),
    }


def test_reduction_is_the_best_approximation_of_its_rank():
    table = many(np.random.default_rng(3))
    kinds = {"cast": "categorical", "year": "numeric"}
    full = AttributeEncoder(kinds).fit_transform(table).astype(np.float64)
    _, s, vt = np.linalg.svd(full, full_matrices=False)
    for dim in (1, 7, 30):
        encoder = AttributeEncoder(kinds, dim=dim).fit(table)
        vectors = encoder.transform(table)
        assert (vectors.shape, vectors.dtype) == ((60, dim), np.float32)
        best = full @ vt[:dim].T @ vt[:dim]
        np.testing.assert_allclose(vectors @ vectors.T, best @ best.T, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), s[:dim], rtol=1e-5)
        components = encoder.components_
        np.testing.assert_allclose(components.T @ components, np.eye(dim), atol=1e-9)
        largest = components[np.abs(components).argmax(axis=0), np.arange(dim)]
        assert (largest > 0).all()


def test_reduction_repeats_and_asks_no_global_generator():
    table = many(np.random.default_rng(4))
    first = AttributeEncoder(["cast"], dim=8).fit_transform(table)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(AttributeEncoder(["cast"], dim=8).fit_transform(table), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_reduction_beyond_the_rank_gives_zero_columns():
    table = {"g": ["a", "b", "a", "b", "c", None] * 3, "h": ["x"] * 18}
    vectors = AttributeEncoder(["g", "h"], dim=3).fit_transform(table)
    same = {"g": ["a"] * 9, "h": ["x"] * 9, "i": [["y", "z"]] * 9}
    one = AttributeEncoder(["g", "h", "i"], dim=2).fit_transform(same)
    assert np.linalg.matrix_rank(vectors) == 3
    assert one[:, 0].all()
    assert not one[:, 1].any()
    nothing = AttributeEncoder(["g", "h"], dim=1, min_count=10).fit_transform(
        {"g": ["a"] * 10 + ["b"] * 10, "h": [None] * 20}
    )
    assert nothing.shape == (20, 1)


# Wrong parameters and inputs


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fields": []}, r"fields must name a field; got \[\]"),
        ({"fields": "genre"}, "fields must name a field; got 'genre'"),
        ({"fields": {"genre": "text"}}, r"fields\['genre'\] must be 'categorical' or 'numeric'"),
        ({"dim": 0}, "dim must be at least 1; got 0"),
        ({"dim": 7}, r"dim must be below the number of items and of columns \(7, 4\); got 7"),
        ({"dim": 4}, r"dim must be below .* got 4"),
        ({"min_count": 0}, "min_count must be at least 1; got 0"),
        ({"weighting": "tfidf"}, "weighting must be 'idf' or None; got 'tfidf'"),
        ({"weights": {"x": 1}}, r"weights must name fields of \['genre'\]; got 'x'"),
        ({"weights": {"genre": -1}}, r"weights\['genre'\] must be finite and not negative; got -1"),
        ({"weights": {"genre": float("nan")}}, r"weights\['genre'\] must be finite .* got nan"),
    ],
)
def test_wrong_parameters(parameters, message):
    encoder = AttributeEncoder(**({"fields": ["genre"]} | parameters))
    with pytest.raises(ValueError, match=message):
        encoder.fit(FILMS)
    with pytest.raises(NotFittedError):
        encoder.transform(FILMS)


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ({"g": ["a"]}, ValueError, "must be a mapping or data frame with the field 'y'; got the f"),
        ([1, 2], ValueError, "must be a mapping or data frame with the field 'g'; got list"),
        (None, ValueError, "must be a mapping or data frame with the field 'g'; got NoneType"),
        ({"g": ["a"], "y": [1, 2]}, ValueError, r"items\['y'\] must have 1 rows like items\['g'\]"),
        ({"g": "abc", "y": [1]}, TypeError, r"items\['g'\] must be a column of cells; got str"),
        ({"g": 3, "y": [1]}, TypeError, r"items\['g'\] must be a column of cells; got int"),
        ({"g": np.array(3), "y": [1]}, TypeError, r"items\['g'\] must be a column of cells; got"),
        ({"g": ["a", 1.5], "y": [1, 2]}, TypeError, r"items\['g'\] must hold .* float in row 1"),
        ({"g": ["a", [["b"]]], "y": [1, 2]}, TypeError, r"items\['g'\] must hold .* list in row 1"),
        ({"g": [{"a": 1}], "y": [1]}, TypeError, r"items\['g'\] must hold .* dict in row 0"),
        ({"g": ["a"], "y": ["1995"]}, TypeError, r"items\['y'\] must hold numbers; got str in row"),
        ({"g": ["a"], "y": [[1]]}, TypeError, r"items\['y'\] must hold numbers; got list in row 0"),
        ({"g": ["a"], "y": [np.inf]}, ValueError, r"items\['y'\] must be finite; got inf in row 0"),
    ],
)
def test_wrong_items(items, error, message):
    fields = {"g": "categorical", "y": "numeric"}
    with pytest.raises(error, match=message) as caught:
        AttributeEncoder(fields).fit(items)
    assert str(caught.value).startswith("AttributeEncoder: items")
    fitted = AttributeEncoder(fields).fit({"g": ["a"], "y": [1]})
    with pytest.raises(error, match=message):
        fitted.transform(items)


def test_a_failed_fit_leaves_the_old_one_in_place():
    encoder = AttributeEncoder(["genre"]).fit(FILMS)
    before = encoder.transform(FILMS)
    with pytest.raises(TypeError):
        encoder.fit({"genre": [1.5]})
    np.testing.assert_array_equal(encoder.transform(FILMS), before)


def test_copies_pickles_and_parameters():
    encoder = AttributeEncoder(KINDS, dim=3).fit(FILMS)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(other.transform(FILMS), encoder.transform(FILMS))
    assert AttributeEncoder(["a"], dim=3).get_params()["dim"] == 3
    assert repr(AttributeEncoder(["a"], dim=3)) == "AttributeEncoder(fields=['a'], dim=3)"


def test_items_are_left_alone():
    items = copy.deepcopy(FILMS)
    AttributeEncoder(KINDS).fit_transform(items)
    assert repr(items) == repr(FILMS)
