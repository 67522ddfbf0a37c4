from __future__ import annotations

import copy
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recfuse.interactions import Interactions

USERS = ["二", "ann", "二", "", "ann"]
ITEMS = [30, 10, 10, 20, 30]
VALUES = [5.0, 3.0, 4.0, 1.0, 2.5]
TIMES = [400, 100, 300, 200, 500]


def events() -> Interactions:
    return Interactions.from_arrays(USERS, ITEMS, VALUES, TIMES)


def triples(interactions: Interactions) -> list[tuple[Any, ...]]:
    columns = [
        interactions.users[interactions.user_index],
        interactions.items[interactions.item_index],
        interactions.values,
    ]
    if interactions.timestamps is not None:
        columns.append(interactions.timestamps)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def assert_same(a: Interactions, b: Interactions) -> None:
    for name in ("user_index", "item_index", "values", "timestamps", "users", "items"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_labels_count_first_appearances():
    e = events()
    assert e.users.tolist() == ["二", "ann", ""]
    assert e.items.tolist() == [30, 10, 20]
    assert e.user_index.tolist() == [0, 1, 0, 2, 1]
    assert e.item_index.tolist() == [0, 1, 1, 2, 0]
    assert (e.user_index.dtype, e.values.dtype, e.timestamps.dtype) == (
        np.dtype(np.intp),
        np.dtype(np.float32),
        np.dtype(np.int64),
    )
    assert (len(e), e.n_users, e.n_items) == (5, 3, 3)
    assert repr(e) == "Interactions(5 events, 3 users, 3 items, with timestamps)"


def test_defaults_are_value_one_and_no_time():
    e = Interactions.from_arrays(["a", "b"], [1, 1])
    assert e.values.tolist() == [1, 1]
    assert e.timestamps is None


@given(
    st.lists(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)),
    st.sampled_from(["dense", "wide"]),
)
def test_integer_ids_keep_their_values(ids, kind):
    if kind == "wide":  # spreads the ids beyond the lookup table, so that the sort is used
        ids = [*ids, 2**62, -(2**62)]
    column = np.array(ids, np.int64)
    e = Interactions.from_arrays(column, np.zeros(len(ids), np.int64))
    assert e.users.tolist() == list(dict.fromkeys(ids))
    assert e.users[e.user_index].tolist() == ids


@given(st.lists(st.text()))
def test_text_ids_keep_their_values(ids):
    e = Interactions.from_arrays(ids, range(len(ids)))
    assert e.users.tolist() == list(dict.fromkeys(ids))
    assert e.users[e.user_index].tolist() == ids


@pytest.mark.parametrize(
    "ids",
    [
        [("a", 1), ("b", 2), ("a", 1)],
        [b"x", b"y", b"x"],
        [2**70, 1, 2**70],
        ["x" * 100_000, "y", "z"],
    ],
    ids=["tuples", "bytes", "big integers", "long strings"],
)
def test_any_hashable_ids(ids):
    e = Interactions.from_arrays(ids, [0, 0, 0])
    assert e.users.shape == (len(set(ids)),)
    assert [e.users[row] for row in e.user_index] == ids


def test_uint64_ids_beyond_int64():
    ids = np.array([2**64 - 1, 5, 2**64 - 1], np.uint64)
    e = Interactions.from_arrays(ids, ids)
    assert e.users.tolist() == [2**64 - 1, 5]
    assert e.user_index.tolist() == [0, 1, 0]


def frames() -> dict[str, Any]:
    columns = {"who": USERS, "what": ITEMS, "stars": VALUES, "when": TIMES}
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(columns)
    table = arrow.table(columns)
    return {
        "mapping": columns,
        "pandas": frame,
        "pandas nullable": frame.convert_dtypes(),
        "pandas categorical": frame.astype({"who": "category", "what": "category"}),
        "pandas other index": frame.set_index(np.array([9, 9, 3, 1, 0])),
        "pandas dates": frame.assign(when=pandas.to_datetime(frame["when"], unit="s")),
        "pandas zoned": frame.assign(
            when=pandas.to_datetime(frame["when"], unit="s", utc=True).dt.tz_convert(
                "Asia/Shanghai"
            )
        ),
        "polars": polars.DataFrame(columns),
        "polars categorical": polars.DataFrame(columns).with_columns(
            polars.col("who").cast(polars.Categorical)
        ),
        "polars dates": polars.DataFrame(columns).with_columns(
            polars.from_epoch("when").dt.cast_time_unit("ms")
        ),
        "polars zoned": polars.DataFrame(columns).with_columns(
            polars.from_epoch("when").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
        ),
        "arrow": table,
        "arrow chunked with offsets": arrow.concat_tables([table, table, table]).slice(5, 5),
    }


FRAMES = [
    "mapping",
    "pandas",
    "pandas nullable",
    "pandas categorical",
    "pandas other index",
    "pandas dates",
    "pandas zoned",
    "polars",
    "polars categorical",
    "polars dates",
    "polars zoned",
    "arrow",
    "arrow chunked with offsets",
]


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_gives_the_same(kind):
    e = Interactions.from_frame(
        frames()[kind], user="who", item="what", value="stars", timestamp="when"
    )
    assert_same(e, events())


def read_only(column: Any) -> np.ndarray:
    array = np.array(column)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "convert",
    [
        np.array,
        tuple,
        read_only,
        lambda column: np.repeat(np.array(column), 2)[::2],
        lambda column: np.array(column)[::-1].copy()[::-1],
        lambda column: np.array(column, object),
        lambda column: [np.asarray(value)[()] for value in column],
        lambda column: np.ma.masked_array(np.array(column), mask=np.zeros(5, bool)),
    ],
    ids=["array", "tuple", "read-only", "strided", "reversed", "object", "scalars", "masked"],
)
def test_every_container_gives_the_same(convert):
    assert_same(
        Interactions.from_arrays(convert(USERS), convert(ITEMS), convert(VALUES), convert(TIMES)),
        events(),
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", ">i4", "uint64", "int64"])
def test_every_integer_dtype_gives_the_same_labels(dtype):
    e = Interactions.from_arrays(USERS, np.array(ITEMS, dtype), VALUES, TIMES)
    assert_same(e, events())


def test_inputs_are_neither_changed_nor_shared():
    users, values = np.array([1, 2, 1]), np.array([1, 2, 3], np.float32)
    times = np.array([1, 2, 3])
    e = Interactions.from_arrays(users, users, values, times, user_labels=np.array([2, 1]))
    for array in (users, values, times):
        array[:] = -1
    assert triples(e) == [(1, 1, 1, 1), (2, 2, 2, 2), (1, 1, 3, 3)]


@pytest.mark.parametrize("name", ["user_index", "item_index", "values", "timestamps", "users"])
def test_immutable(name):
    e = events()
    with pytest.raises(ValueError, match="read-only"):
        getattr(e, name)[0] = 0
    with pytest.raises(AttributeError):
        setattr(e, name, None)


def test_copies_and_pickles():
    assert_same(copy.deepcopy(events()), events())
    assert_same(pickle.loads(pickle.dumps(events())), events())


def test_dates_become_utc_seconds():
    zone = timezone(timedelta(hours=8))
    moments = [datetime(1970, 1, 1, 8, 0, 1, tzinfo=zone), datetime(1970, 1, 1, 0, 0, 2)]
    e = Interactions.from_arrays([1, 2], [1, 2], timestamps=moments)
    assert e.timestamps.tolist() == [1, 2]
    days = np.array(["1970-01-02", "1969-12-31"], "datetime64[D]")
    e = Interactions.from_arrays([1, 2], [1, 2], timestamps=days)
    assert e.timestamps.tolist() == [86400, -86400]
    before = np.array(["1969-12-31T23:59:59.5"], "datetime64[ms]")
    assert Interactions.from_arrays([1], [1], timestamps=before).timestamps.tolist() == [-1]


def test_dates_in_text_are_those_of_iso_8601():
    texts = {
        "1970-01-02": 86400,
        "1970-01-01 00:00:05": 5,
        "1970-01-01T00:00:05Z": 5,
        "1970-01-01T08:00:05+08:00": 5,
        "1969-12-31T23:59:59.500000": -1,
        "2024-02-29 12:00:00": 1709208000,
    }
    ids = list(range(len(texts)))
    for kind in (list, np.array, lambda x: np.array(list(x), object)):
        e = Interactions.from_arrays(ids, ids, timestamps=kind(list(texts)))
        assert e.timestamps.tolist() == list(texts.values())


def test_whole_float_timestamps_are_accepted():
    e = Interactions.from_arrays([1, 2], [1, 2], timestamps=[881250949.0, 5.0])
    assert e.timestamps.tolist() == [881250949, 5]


def test_given_id_spaces_keep_order_and_items_without_events():
    e = Interactions.from_arrays([5, 7], ["b", "b"], user_labels=[7, 6, 5], item_labels=["a", "b"])
    assert e.user_index.tolist() == [2, 0]
    assert e.to_csr().toarray().tolist() == [[0, 1], [0, 0], [0, 1]]
    assert e.user_ids([6, 5]).tolist() == [1, 2]
    assert e.item_ids(["b"]).tolist() == [1]


def test_no_events():
    e = Interactions.from_arrays([], [], [], [])
    assert e.to_csr().shape == (0, 0)
    assert len(e.core(2).deduplicate("sum").at_least(1).compact().select([])) == 0
    e = Interactions.from_arrays([], [], item_labels=[1, 2])
    assert e.to_csr().shape == (0, 2)


def test_to_csr_is_canonical_and_sums_duplicates():
    e = Interactions.from_arrays([0, 1, 0, 0], [1, 0, 0, 1], [2, 0, 1, 3])
    matrix = e.to_csr()
    assert isinstance(matrix, sp.csr_array)
    assert matrix.dtype == np.float32
    assert matrix.has_canonical_format
    assert matrix.nnz == 3  # the event of value 0 stays stored
    assert matrix.toarray().tolist() == [[5, 1], [0, 0]]


def test_select_keeps_the_id_spaces():
    e = events()
    mask = np.array([False, True, False, False, True])
    for chosen in (mask, mask.tolist(), [1, 4], np.array([1, 4], np.uint8)):
        part = e.select(chosen)
        assert triples(part) == [("ann", 10, 3, 100), ("ann", 30, 2.5, 500)]
        assert part.users is e.users or part.users.tolist() == e.users.tolist()
        assert part.n_items == 3
    assert triples(e.select([4, 4, 0]))[0] == triples(e.select([4, 4, 0]))[1]


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True], ValueError, r"mask must have shape \(5,\); got \(1,\)"),
        (np.ones((5, 1), bool), ValueError, r"mask must have shape \(5,\); got \(5, 1\)"),
        ([5], IndexError, r"mask must be in \[0, 5\); got 5"),
        ([-1], IndexError, r"mask must be in \[0, 5\); got -1"),
        ([0.0], TypeError, "mask must be bool or int; got dtype float64"),
        (["a"], TypeError, "mask must be bool or int"),
    ],
)
def test_select_refuses(mask, error, message):
    with pytest.raises(error, match=message):
        events().select(mask)


def test_at_least():
    assert [value for *_, value, _ in triples(events().at_least(3))] == [5, 3, 4]
    with pytest.raises(ValueError, match="at_least: value must be finite; got nan"):
        events().at_least(float("nan"))


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("last", [("b", 2, 1, 9), ("a", 1, 2, 8)]),
        ("first", [("a", 1, 4, 3), ("b", 2, 1, 9)]),
        ("sum", [("b", 2, 1, 9), ("a", 1, 10, 8)]),
        ("max", [("a", 1, 4, 5), ("b", 2, 1, 9)]),
    ],
)
def test_deduplicate(keep, expected):
    e = Interactions.from_arrays(
        ["a", "a", "b", "a"], [1, 1, 2, 1], values=[4, 4, 1, 2], timestamps=[3, 5, 9, 8]
    )
    assert triples(e.deduplicate(keep)) == expected


def test_deduplicate_without_time_goes_by_position():
    e = Interactions.from_arrays(["a", "b", "a"], [1, 1, 1], values=[3, 2, 1])
    assert triples(e.deduplicate("first")) == [("a", 1, 3), ("b", 1, 2)]
    assert triples(e.deduplicate("last")) == [("b", 1, 2), ("a", 1, 1)]


def test_deduplicate_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"deduplicate: keep must be .*; got 'mean'"):
        events().deduplicate("mean")


def test_deduplicate_refuses_a_sum_beyond_float32():
    e = Interactions.from_arrays([1, 1], [1, 1], values=[3e38, 3e38])
    with pytest.raises(ValueError, match="sums of values must be finite float32"):
        e.deduplicate("sum")


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60),
    st.integers(1, 4),
)
def test_core_equals_the_definition(pairs, n):
    e = Interactions.from_arrays([u for u, _ in pairs], [i for _, i in pairs])
    left = set(pairs)
    while True:
        kept = {
            (u, i)
            for u, i in left
            if sum(v == u for v, _ in left) >= n and sum(j == i for _, j in left) >= n
        }
        if kept == left:
            break
        left = kept
    core = e.core(n)
    assert [pair for pair in pairs if pair in left] == [(u, i) for u, i, _ in triples(core)]
    assert (core.n_users, core.n_items) == (e.n_users, e.n_items)
    small = core.compact()
    assert triples(small) == triples(core)
    assert small.users.tolist() == [u for u in e.users.tolist() if u in {v for v, _ in left}]


def test_core_refuses_zero():
    with pytest.raises(ValueError, match="core: n must be at least 1; got 0"):
        events().core(0)


NAN, NAT = float("nan"), np.datetime64("NaT")


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"users": [1, None]}, ValueError, "users must have no missing values; got None in row 1"),
        ({"users": ["a", NAN]}, ValueError, "users must have no missing values; got nan in row 1"),
        ({"users": [1.0, NAN]}, ValueError, "users must have no missing values; got nan in row 1"),
        (
            {"users": np.array([NAN, 1.0])},
            ValueError,
            "users must have no missing values; got nan in row 0",
        ),
        (
            {"users": np.ma.masked_array([1, 2], mask=[0, 1])},
            ValueError,
            "users must have no missing values; got -- in row 1",
        ),
        ({"users": [1, "1"]}, TypeError, "one type; got int in row 0 and str in row 1"),
        ({"users": [1, True]}, TypeError, "one type; got int in row 0 and bool in row 1"),
        ({"users": [1.5, 2.5]}, TypeError, "must be integers, strings .*; got float"),
        ({"users": np.array([1.0, 2.0])}, TypeError, r"got dtype float64. Convert .*astype"),
        ({"users": [True, False]}, TypeError, "got bool"),
        ({"users": np.array([True, False])}, TypeError, "got dtype bool"),
        ({"users": [["a"], ["b"]]}, TypeError, "must be hashable ids; got list in row 0"),
        ({"users": [("a",), ([],)]}, TypeError, "must be hashable ids; got tuple in row 1"),
        ({"users": np.zeros(2, "datetime64[s]")}, TypeError, "got dtype datetime64"),
        ({"users": np.zeros(2, "i4,f4")}, TypeError, "users must be integers, strings"),
        ({"users": np.zeros((2, 1), int)}, ValueError, r"1 dimension; got shape \(2, 1\)"),
        (
            {"users": np.array([[1, 2]]).view(np.matrix)},
            ValueError,
            r"1 dimension; got shape \(1, 2\)",
        ),
        ({"users": np.int64(3)}, ValueError, r"users must have 1 dimension; got shape \(\)"),
        ({"users": "ab"}, TypeError, "users must be a sequence, array or Series; got str"),
        ({"users": {1, 2}}, TypeError, "users must be a sequence, array or Series; got set"),
        ({"users": iter([1, 2])}, TypeError, "got list_iterator"),
        ({"users": 5}, TypeError, "users must be a sequence, array or Series; got int"),
        ({"items": [1]}, ValueError, "items must have 2 rows, one per event; got 1"),
        ({"values": [1]}, ValueError, "values must have 2 rows, one per event; got 1"),
        ({"timestamps": [1]}, ValueError, "timestamps must have 2 rows, one per event; got 1"),
        ({"values": [1, NAN]}, ValueError, "values must have no missing.*; got nan in row 1"),
        ({"values": np.array([NAN, 1])}, ValueError, "values must have no .*; got nan in row 0"),
        ({"values": [-np.inf, 1]}, ValueError, "values must be finite.*; got -inf in row 0"),
        (
            {"values": [1, 1e39]},
            ValueError,
            r"values must be finite float32.*; got 1e\+39 in row 1",
        ),
        ({"values": [1, None]}, ValueError, "values must have no missing.*; got None in row 1"),
        ({"values": ["1", "2"]}, TypeError, "values must hold real numbers; got dtype <U1"),
        ({"values": [1j, 2]}, TypeError, "values must hold real numbers; got dtype complex128"),
        ({"values": np.array([object()] * 2)}, TypeError, "values must hold real numbers"),
        (
            {"timestamps": [1, NAN]},
            ValueError,
            "timestamps must have no missing.*; got nan in row 1",
        ),
        (
            {"timestamps": [1.0, 2.5]},
            ValueError,
            "timestamps must be whole seconds; got 2.5 in row 1",
        ),
        ({"timestamps": [1.0, 1e30]}, ValueError, r"whole seconds; got 1e\+30 in row 1"),
        ({"timestamps": [1.0, np.inf]}, ValueError, "whole seconds; got inf in row 1"),
        (
            {"timestamps": np.array(["2020-01-01", NAT], "datetime64[s]")},
            ValueError,
            "timestamps must have no missing values; got NaT in row 1",
        ),
        (
            {"timestamps": np.array([1, 2**63], np.uint64)},
            ValueError,
            r"timestamps must be below 2\*\*63; got 9223372036854775808 in row 1",
        ),
        ({"timestamps": ["1", "2"]}, ValueError, "integers, or dates like .*; got '1' in row 0"),
        ({"timestamps": ["2026-01-31", "31.1.2026"]}, ValueError, "got '31.1.2026' in row 1"),
        ({"timestamps": ["20260131", "20260201"]}, ValueError, "got '20260131' in row 0"),
        ({"timestamps": [True, False]}, TypeError, "integers or dates; got dtype bool"),
        ({"user_labels": [1, 3]}, ValueError, "users must be known ids; got .*2.* in row 1"),
        ({"user_labels": ["1", "2"]}, ValueError, "users must be known ids; got 1 in row 0"),
        ({"user_labels": []}, ValueError, "users must be known ids; got .*1.* in row 0"),
        ({"user_labels": [1, 2, 2]}, ValueError, "user_labels must have no duplicates; .* row 2"),
        ({"item_labels": [1, 2, None]}, ValueError, "item_labels must have no missing values"),
    ],
)
def test_bad_columns(columns, error, message):
    good: dict[str, Any] = {"users": [1, 2], "items": [1, 2]}
    with pytest.raises(error, match=message) as caught:
        Interactions.from_arrays(**{**good, **columns})
    assert str(caught.value).startswith("Interactions: ")


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("column", ["who", "what", "stars", "when"])
def test_missing_entries_of_frames(library, column):
    columns = {"who": ["a", "b"], "what": [1, 2], "stars": [1.0, 2.0], "when": [5, 6]}
    columns[column] = [columns[column][0], None]
    module = pytest.importorskip(library)
    frame = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    with pytest.raises(ValueError, match=f"column '{column}' must .* row 1"):
        Interactions.from_frame(frame, user="who", item="what", value="stars", timestamp="when")


def test_pandas_na_is_missing():
    pandas = pytest.importorskip("pandas")
    for dtype in ("Int64", "string"):
        frame = pandas.DataFrame({"u": pandas.array(["1", None], dtype=dtype), "i": [1, 2]})
        with pytest.raises(
            ValueError, match=r"column 'u' must have no missing values; .* in row 1"
        ):
            Interactions.from_frame(frame, user="u", item="i")


def test_a_missing_column_names_those_that_exist():
    with pytest.raises(
        ValueError, match=r"user must name one of the columns \['a', 'b'\]; got 'c'"
    ):
        Interactions.from_frame({"a": [1], "b": [1]}, user="c", item="b")
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match=r"value must name one of the columns \['a', 'b'\]"):
        frame = pandas.DataFrame({"a": [1], "b": [1]})
        Interactions.from_frame(frame, user="a", item="b", value="rating")


def test_what_is_no_frame():
    for frame in ([[1, 2]], np.zeros((2, 2)), None):
        with pytest.raises(TypeError, match="frame must be a pandas or polars DataFrame"):
            Interactions.from_frame(frame, user="u", item="i")
    polars = pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"got LazyFrame. Call collect\(\) first"):
        Interactions.from_frame(polars.LazyFrame({"u": [1]}), user="u", item="u")


def test_unknown_labels_are_named():
    with pytest.raises(ValueError, match=r"item_ids: labels must be known ids; got 99 in row 1"):
        events().item_ids([10, 99])
    with pytest.raises(ValueError, match="user_ids: labels must be known ids; got 'bob' in row 0"):
        events().user_ids(["bob"])


def test_the_constructor_checks_its_indices():
    zero = np.zeros(1, np.intp)
    with pytest.raises(IndexError, match=r"item_index must be in \[0, 1\); got 1"):
        Interactions(zero, zero + 1, np.ones(1, np.float32), None, zero, zero)
    with pytest.raises(ValueError, match="values must have 1 entries like user_index; got 2"):
        Interactions(zero, zero, np.ones(2, np.float32), None, zero, zero)
