"""Tables of events, cleaning and the saved pipeline, against the formulas by hand and pandas."""

from __future__ import annotations

import math
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recfuse
from recfuse import storage
from recfuse.errors import FormatError, NotFittedError
from recfuse.interactions import Interactions
from recfuse.preprocess import (
    Cleaner,
    EventReader,
    Pipeline,
    Report,
    Standardizer,
    check,
    read_table,
)
from recfuse.privacy import forget_users
from recfuse.sessions import decayed

DAY = 86_400
TABLE = {
    "who": ["王", "ann", "王", "bo", "ann", "ann"],
    "what": [7, 7, 9, 9, 9, 7],
    "did": ["view", "buy", "cart", "view", "view", "buy"],
    "clicks": [2, 1, 1, 3, 1, 1],
    "seconds": [30.0, None, 600.0, 0.0, 5000.0, None],
    "price": [None, 19.9, None, None, None, 0.0],
    "when": [0, 10 * DAY, 20 * DAY, 25 * DAY, 30 * DAY, 30 * DAY],
}
WEIGHTS = {"view": 1, "cart": 3, "buy": 10}


def reader(**options: Any) -> EventReader:
    settings: dict[str, Any] = {
        "user": "who",
        "item": "what",
        "event": "did",
        "weights": WEIGHTS,
        "value": "clicks",
        "timestamp": "when",
        "half_life": 10 * DAY,
        "dwell": "seconds",
        "dwell_unit": 30.0,
        "amount": "price",
        "amount_unit": 5.0,
        "clip": {"seconds": (None, 900.0)},
    }
    return EventReader(**{**settings, **options})


def strengths(now: int = 30 * DAY) -> list[float]:
    """Compute the formula of the docstring, row by row."""
    rows = zip(*(TABLE[c] for c in ("did", "clicks", "seconds", "price", "when")), strict=True)
    result = []
    for did, clicks, seconds, price, when in rows:
        s = WEIGHTS[did] * clicks * 0.5 ** (max(now - when, 0) / (10 * DAY))
        if seconds is not None:
            s *= 1 + math.log(1 + min(seconds, 900.0) / 30.0)
        if price is not None:
            s *= 1 + math.log(1 + price / 5.0)
        result.append(s)
    return result


def tables() -> dict[str, Any]:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(TABLE)
    return {
        "mapping": TABLE,
        "pandas": frame,
        "pandas nullable": frame.convert_dtypes(),
        "pandas dates": frame.assign(when=pandas.to_datetime(frame["when"], unit="s")),
        "pandas categorical": frame.astype({"did": "category"}),
        "polars": polars.DataFrame(TABLE),
        "arrow": arrow.table(TABLE),
    }


@pytest.mark.parametrize("kind", [*tables(), "csv", "tsv.gz", "parquet", "dates.csv"])
def test_strengths_are_the_formula_from_any_table(kind, tmp_path):
    table = tables().get(kind)
    if table is None:
        table = tmp_path / f"事件.{kind}"
        frame = tables()["pandas dates" if "dates" in kind else "pandas"]
        if kind == "parquet":
            frame.to_parquet(table)
        else:
            frame.to_csv(table, index=False, sep="\t" if "tsv" in kind else ",")
    events = reader().fit_transform(table)
    np.testing.assert_allclose(events.values, strengths(), rtol=1e-7)
    assert events.users[events.user_index].tolist() == TABLE["who"]
    assert events.items[events.item_index].tolist() == TABLE["what"]
    assert events.timestamps is not None
    assert events.timestamps.tolist() == TABLE["when"]


def test_the_matrix_adds_up_the_events_of_a_pair():
    matrix = reader().fit_transform(TABLE).to_csr()
    s = strengths()
    expected = [[s[0], s[2]], [s[1] + s[5], s[4]], [0, s[3]]]
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)


def test_only_the_ids_are_needed():
    events = EventReader(user="who", item="what").fit_transform(TABLE)
    assert events.values.tolist() == [1] * 6
    assert events.timestamps is None


def test_age_counts_from_now_and_the_future_counts_in_full():
    for now in (100 * DAY, 12 * DAY):
        events = reader(now=now).fit_transform(TABLE)
        np.testing.assert_allclose(events.values, strengths(now), rtol=1e-7)


def test_now_and_the_ids_are_those_of_the_fit():
    fitted = reader().fit(TABLE)
    later = {name: cells[2:4] for name, cells in TABLE.items()}
    events = fitted.transform(later)
    assert (fitted.now_, events.users.tolist()) == (30 * DAY, ["王", "ann", "bo"])
    np.testing.assert_allclose(events.values, strengths()[2:4], rtol=1e-7)
    assert events.user_index.tolist() == [0, 2]


MISSING = {
    "who": ["a", None, "b", "c", "c"],
    "what": [2**53 + 1, 2, None, 3, 2**53 + 1],
    "did": ["view", "view", "view", None, "wave"],
    "when": [1, 2, 3, 4, 5],
}


@pytest.mark.parametrize(
    "kind", ["mapping", "masked", "pandas", "pandas nullable", "polars", "arrow"]
)
def test_rows_with_missing_cells_and_unknown_types_go_when_asked(kind):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    table = {
        "mapping": MISSING,
        "masked": {**MISSING, "what": np.ma.masked_equal([2**53 + 1, 2, -1, 3, 2**53 + 1], -1)},
        # A plain column of integers beside a missing one is float: that is before us.
        "pandas": pandas.DataFrame(MISSING).astype({"what": "Int64"}),
        "pandas nullable": pandas.DataFrame(MISSING).astype({"what": "Int64"}).convert_dtypes(),
        "polars": polars.DataFrame(MISSING),
        "arrow": arrow.table(MISSING),
    }[kind]
    if kind.startswith("pandas"):
        table["what"] = pandas.array(MISSING["what"], dtype="Int64")
    report = Report()
    options = {"event": "did", "weights": {"view": 2}, "timestamp": "when"}
    wanted = EventReader(user="who", item="what", missing="drop", unknown_events="drop", **options)
    events = wanted.fit_transform(table, report=report)
    assert events.users.tolist() == ["a"]
    assert events.items.tolist() == [2**53 + 1]  # float64 would have lost the last bit
    assert report.as_dict() == {
        "EventReader: drop missing": {"before": 5, "after": 2, "taken": 3, "changed": 0},
        "EventReader: drop unknown events": {"before": 2, "after": 1, "taken": 1, "changed": 0},
    }
    with pytest.raises(ValueError, match=r"column 'who' must have no missing .* row 1"):
        EventReader(user="who", item="what", **options).fit_transform(table)


def test_the_report_counts_what_was_clipped():
    report = Report()
    reader().fit_transform(TABLE, report=report)
    assert report.as_dict() == {
        "EventReader: clip seconds": {"before": 6, "after": 6, "taken": 0, "changed": 1}
    }


def test_unknown_ids():
    fitted = reader().fit(TABLE)
    later = {**TABLE, "who": ["王", "zoë", "王", "bo", "ann", "ann"], "what": [7, 7, 9, 9, 9, 1]}
    with pytest.raises(ValueError, match="column 'who' must be known ids; got 'zoë' in row 1"):
        fitted.transform(later)
    report = Report()
    events = fitted.set_params(unknown_ids="drop").transform(later, report=report)
    assert events.user_index.tolist() == [0, 0, 2, 1]
    assert report.as_dict()["EventReader: drop unknown ids"]["taken"] == 2


def test_a_catalogue_gives_ids_to_what_has_no_event(tmp_path):
    labelled = reader(item_labels=[3, 7, 9, 1, 8], user_labels=["bo", "ann", "王", "zoë"])
    plain = reader().fit_transform(TABLE)
    events = labelled.fit_transform(TABLE)
    assert events.items.tolist() == [3, 7, 9, 1, 8] == labelled.items_.tolist()
    assert events.users.tolist() == ["bo", "ann", "王", "zoë"]
    np.testing.assert_array_equal(events.items[events.item_index], plain.items[plain.item_index])
    np.testing.assert_array_equal(events.users[events.user_index], plain.users[plain.user_index])
    np.testing.assert_array_equal(events.values, plain.values)
    labelled.save(tmp_path / "reader")
    again = recfuse.load(tmp_path / "reader").transform(TABLE)
    assert again.items.tolist() == events.items.tolist() and again.n_users == 4
    np.testing.assert_array_equal(again.values, events.values)


def test_events_outside_of_a_catalogue():
    few = reader(item_labels=[9])
    with pytest.raises(ValueError, match="column 'what' must be known ids; got"):
        few.fit(TABLE)
    report = Report()
    events = few.set_params(unknown_ids="drop").fit_transform(TABLE, report=report)
    inside = TABLE["what"].count(9)
    assert len(events) == inside and events.items.tolist() == [9]
    taken = report.as_dict()["EventReader: drop unknown ids"]["taken"]
    assert taken == len(TABLE["what"]) - inside > 0


def test_one_rule_says_how_events_fade():
    """Reading with a half-life is reading without it and fading afterwards."""
    options = {"user": "who", "item": "what", "timestamp": "when"}
    table = {"who": [0, 0, 1, 1], "what": [0, 1, 0, 0], "when": [5, 90, 40, 0]}
    at_once = EventReader(**options, half_life=30.0).fit_transform(table).to_csr()
    afterwards = decayed(EventReader(**options).fit_transform(table), 30.0)
    np.testing.assert_allclose(at_once.toarray(), afterwards.toarray(), rtol=1e-7)
    for half_life in (np.inf, 0.0, -1.0, np.nan):
        fade = [
            lambda h=half_life: EventReader(**options, half_life=h).fit_transform(table).to_csr(),
            lambda h=half_life: decayed(EventReader(**options).fit_transform(table), h),
        ]
        if half_life == np.inf:
            assert all(f().toarray().tolist() == [[1, 1], [2, 0]] for f in fade)
        else:
            for f in fade:
                with pytest.raises(ValueError, match="half_life must be above 0; got"):
                    f()


@pytest.mark.parametrize(
    ("options", "table", "error", "message"),
    [
        (
            {"user": "nobody"},
            {},
            ValueError,
            r"user must name one of the columns \['who'.*'nobody'",
        ),
        (
            {"weights": {"view": 1}},
            {},
            ValueError,
            r"event must be one of the types \['view'\].*buy",
        ),
        ({"weights": None}, {}, ValueError, "weights must be given if, and only if, event is"),
        ({"event": None}, {}, ValueError, "weights must be given if, and only if, event is"),
        (
            {"weights": {**WEIGHTS, "buy": -1}},
            {},
            ValueError,
            r"weights\['buy'\] must be finite and",
        ),
        ({"weights": {**WEIGHTS, "buy": "x"}}, {}, TypeError, r"weights\['buy'\] must be a number"),
        ({"timestamp": None}, {}, ValueError, "timestamp must be given where half_life is"),
        ({"half_life": 0}, {}, ValueError, "half_life must be above 0; got 0"),
        ({"dwell_unit": -1.0}, {}, ValueError, "dwell_unit must be finite and above 0"),
        ({"missing": "ignore"}, {}, ValueError, "missing must be 'error' or 'drop'; got 'ignore'"),
        ({"clip": {"who": (0, 1)}}, {}, ValueError, "clip must name value, dwell or amount"),
        ({}, {"price": [-1.0] * 6}, ValueError, "amount must be finite and at least 0; .* row 0"),
        ({}, {"price": ["1"] * 6}, TypeError, "amount must hold real numbers"),
        ({}, {"price": [1.0]}, ValueError, "amount must have 6 rows like 'who'; got 1"),
        ({}, {"seconds": [np.inf] + [1.0] * 5, "clip": 1}, ValueError, "dwell must be finite"),
        ({"value": "seconds"}, {}, ValueError, "must have no missing values; got nan in row 1"),
    ],
)
def test_wrong_tables_and_parameters(options, table, error, message):
    if table.pop("clip", None):
        options = {**options, "clip": None}
    with pytest.raises(error, match=message) as caught:
        reader(**options).fit_transform({**TABLE, **table})
    assert str(caught.value).startswith("EventReader: ")


def test_what_is_no_table(tmp_path):
    with pytest.raises(TypeError, match="EventReader: table must be a pandas or polars DataFrame"):
        reader().fit([[1, 2]])
    polars = pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"got LazyFrame. Call collect\(\) first"):
        reader().fit(polars.LazyFrame(TABLE))
    with pytest.raises(ValueError, match=r"path must end in .csv, .*; got 'a.xlsx'"):
        read_table(tmp_path / "a.xlsx")
    with pytest.raises(NotFittedError):
        reader().transform(TABLE)


def test_cleaning_equals_pandas(rng):
    """The recipe of the field: dropna, score > 0, StandardScaler, with ids beside it."""
    pandas = pytest.importorskip("pandas")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    n = 300
    frame = pandas.DataFrame(
        {
            "user": rng.integers(0, 20, n).astype(str),
            "item": rng.integers(0, 30, n),
            "score": rng.normal(1, 2, n),
        }
    )
    frame.loc[rng.random(n) < 0.1, "score"] = np.nan
    frame.loc[rng.random(n) < 0.1, "user"] = None
    pipeline = Pipeline(
        [
            EventReader(user="user", item="item", value="score", missing="drop"),
            Cleaner(above=0),
            Standardizer(),
        ]
    )
    report = Report()
    events = pipeline.fit_transform(frame, report=report)

    expected = frame.dropna()
    complete = len(expected)
    expected = expected[expected["score"] > 0]
    scores = preprocessing.StandardScaler().fit_transform(expected[["score"]])[:, 0]
    np.testing.assert_allclose(events.values, scores, rtol=1e-5, atol=1e-6)
    assert events.users[events.user_index].tolist() == expected["user"].tolist()
    assert [(line.before, line.after) for line in report.lines] == [
        (n, complete),
        (complete, len(expected)),
    ]
    assert str(report).splitlines()[1].split() == [
        *["EventReader:", "drop", "missing"], str(n), str(complete), str(n - complete), "0",
    ]  # fmt: skip


def test_the_rules_of_the_cleaner_in_their_order():
    events = Interactions.from_arrays(
        ["a", "a", "a", "b", "c", "c"], [1, 1, 2, 1, 3, 1], values=[1, 9, 2, 0, 5, 0.5]
    )
    report = Report()
    clean = Cleaner(above=0, minimum=1, clip=(2, 6), duplicates="sum", core=1)
    kept = clean.transform(events, report=report)
    assert kept.to_csr().toarray().tolist() == [[8, 2, 0], [0, 0, 0], [0, 0, 5]]
    rows = {step: (line["before"], line["after"], line["changed"])
            for step, line in report.as_dict().items()}  # fmt: skip
    assert rows == {
        "Cleaner: above 0": (6, 5, 0),
        "Cleaner: minimum 1": (5, 4, 0),
        "Cleaner: clip to 2 and 6": (4, 4, 2),
        "Cleaner: duplicates, keep sum": (4, 3, 0),
        "Cleaner: 1-core": (3, 3, 0),
    }
    assert (kept.n_users, kept.n_items) == (3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"above": np.nan}, "above must be finite; got nan"),
        ({"clip": (3, 1)}, r"clip must have low at most high; got \(3, 1\)"),
        ({"duplicates": "mean"}, "keep must be"),
        ({"core": 0}, "n must be at least 1"),
    ],
)
def test_wrong_rules(options, message):
    events = Interactions.from_arrays(["a"], [1])
    with pytest.raises(ValueError, match=message):
        Cleaner(**options).transform(events)
    with pytest.raises(TypeError, match="Cleaner: x must be Interactions; got list"):
        Cleaner(above=0).transform([1])


UTC = timezone.utc
IDS: dict[str, list[Any]] = {
    "text": ["王小明", "", "a\0b", "🦊", "é"],
    "integers": [0, -(2**63), 2**63 - 1, 5, 6],
    "big integers": [2**70, -(2**70), 1, 5, 6],
    "bytes": [b"", b"\xff\x00", b"a", b"b", b"c"],
    "tuples": [("二", 1), ("二", (2.5, None)), (b"x", True), (), (frozenset({"b", "a"}),)],
    "uuids": [UUID(int=n) for n in range(5)],
    "dates": [date(2024, 1, n) for n in range(1, 6)],
    "times": [datetime(2024, 1, n, 3, 4, 5, 6, tzinfo=UTC) for n in range(1, 6)],
    "decimals": [Decimal(text) for text in ("0.1", "1e-9", "-3", "7.50", "Infinity")],
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_kind_survive_the_file(kind, tmp_path):
    ids = IDS[kind]
    table = {"u": ids, "i": ids[::-1], "n": [1.0, 2.0, 3.0, 4.0, 5.0]}
    pipeline = Pipeline([EventReader(user="u", item="i", value="n"), Cleaner(minimum=2)]).fit(table)
    pipeline.save(tmp_path / "管道.recfuse")
    again = recfuse.load(tmp_path / "管道.recfuse")
    labels = again.steps_[0].users_.tolist()
    assert labels == ids
    assert list(map(type, labels)) == list(map(type, ids))
    before, after = pipeline.transform(table), again.transform(table)
    assert after.items[after.item_index].tolist() == ids[::-1][1:]
    np.testing.assert_array_equal(after.to_csr().toarray(), before.to_csr().toarray())


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary() | st.floats(allow_nan=False) | st.decimals(allow_nan=False) | st.dates()
    | st.datetimes().map(lambda t: t.replace(fold=0)) | st.uuids(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(st.tuples(nested), unique=True, min_size=1, max_size=4))
def test_any_tuple_survives_the_file(tmp_path_factory, ids):
    path = tmp_path_factory.getbasetemp() / "ids.recfuse"
    try:
        EventReader(user="u", item="u").fit({"u": ids}).save(path)
    except TypeError as error:  # only what is nested too deeply
        assert "got tuple" in str(error) or "got frozenset" in str(error)
        return
    labels = recfuse.load(path).users_.tolist()
    assert labels == ids
    assert repr(labels) == repr(ids) or "frozenset" in repr(ids)


def test_types_of_events_are_ids_too(tmp_path):
    fitted = EventReader(user="u", item="i", event="e", weights={1: 0.5, 2: 4.0})
    table = {"u": ["a", "b"], "i": [1, 1], "e": [2, 1]}
    fitted.fit(table).save(tmp_path / "f")
    again = recfuse.load(tmp_path / "f")
    assert again.weights == {1: 0.5, 2: 4.0}
    assert again.transform(table).values.tolist() == [4.0, 0.5]


class Odd(tuple):
    pass


def test_ids_of_unknown_types_are_refused(tmp_path):
    fitted = EventReader(user="u", item="u").fit({"u": [Odd([1])]})
    with pytest.raises(TypeError, match=r"EventReader.users_ must hold ids .*; got Odd"):
        fitted.save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"eval": "1"}', '{"tuple": 3}', "[1]", "1.5", '{"Decimal": "x"}', '{"bytes": "zz"}',
        "{" * 9, '{"tuple": [' * 20 + "]}" * 20, "[" * 100_000, '{"tuple": [], "bytes": ""}',
    ],
)  # fmt: skip
def test_damaged_ids_are_refused(text, tmp_path):
    path = tmp_path / "f"
    EventReader(user="u", item="u").fit({"u": [b"x"]}).save(path)
    arrays, metadata = storage.read(path, mmap=False)
    arrays["EventReader.users_"] = np.array([text], object)
    storage.write(path, arrays, metadata, kind="estimator")
    with pytest.raises(FormatError, match="must describe an estimator"):
        recfuse.load(path)


def test_a_labelled_model_has_any_ids_too(tmp_path):
    users = [("王", 1), ("王", 2), ("李", 1)]
    events = Interactions.from_arrays([*users, users[0]], [b"a", b"a", b"b", b"b"])
    model = recfuse.LabelledModel(recfuse.ItemNeighbours(k=2)).fit(events)
    model.save(tmp_path / "m")
    again = recfuse.load(tmp_path / "m")
    assert again.recommend([("王", 2)], k=1)[0].tolist() == [[b"b"]]


def test_one_file_from_the_table_to_the_list(tmp_path):
    model = recfuse.LabelledModel(recfuse.ItemNeighbours(k=2))
    pipeline = Pipeline([reader(), Cleaner(duplicates="sum"), model]).fit(TABLE)
    expected = recfuse.LabelledModel(recfuse.ItemNeighbours(k=2)).fit(
        reader().fit_transform(TABLE).deduplicate("sum")
    )
    pipeline.save(tmp_path / "all")
    for other in (pipeline, recfuse.load(tmp_path / "all")):
        items, scores = other.recommend(["bo", "王"], k=1)
        want = expected.recommend(["bo", "王"], k=1)
        assert items.tolist() == want[0].tolist() == [[7], [None]]
        np.testing.assert_array_equal(scores, want[1])
        assert len(other.transform(TABLE)) == 5
    assert not hasattr(model, "users_")
    with pytest.raises(TypeError, match="Pipeline: steps must end in a model; got Cleaner"):
        Pipeline([reader(), Cleaner()]).fit(TABLE).recommend(["bo"])
    with pytest.raises(TypeError, match=r"got LabelledModel.* as step 1"):
        Pipeline([model, Cleaner()]).fit(TABLE)


def test_a_pipeline_ends_in_a_multimodal_model(tmp_path, rng):
    """From the table to the list in one file: content goes to the model, in the order of goods."""
    goods = ["pot", "tea", "壶", "cup"]
    table = {"who": ["王", "王", "ann", "ann", "bo"], "what": ["tea", "壶", "tea", "pot", "壶"]}
    content = {"text": rng.normal(size=(4, 3)).astype(np.float32)}
    behaviour = {"als": recfuse.AlternatingLeastSquares(2, random_state=0)}
    fused = recfuse.MultimodalRecommender(behaviour, weights={"als": 0.5, "text": 0.5})
    read = EventReader(user="who", item="what", item_labels=goods)
    pipeline = Pipeline([read, recfuse.LabelledModel(fused)]).fit(table, items=content)
    lists = pipeline.recommend(["bo", "王"], k=2)
    expected = fused.fit(read.fit_transform(table).to_csr(), content).recommend([2, 0], k=2)
    assert lists[0].tolist() == [[goods[i] for i in row] for row in expected[0]]
    np.testing.assert_array_equal(lists[1], expected[1])
    pipeline.save(tmp_path / "shop.recfuse")
    again = recfuse.load(tmp_path / "shop.recfuse").recommend(["bo", "王"], k=2)
    assert again[0].tolist() == lists[0].tolist()
    with pytest.raises(TypeError, match=r"end in a model that takes \['items'\]; got EventReader"):
        Pipeline([read]).fit(table, items=content)


def test_encoders_of_features_are_steps(tmp_path):
    pytest.importorskip("sklearn")
    from recfuse.features import AttributeEncoder
    from recfuse.preprocess import L2Normalizer

    items = {"genre": ["剧情", "喜剧", None], "price": [1.0, 2.0, None]}
    encoder = AttributeEncoder({"genre": "categorical", "price": "numeric"})
    vectors = Pipeline([encoder, L2Normalizer()]).fit_transform(items)
    expected = L2Normalizer().transform(encoder.fit(items).transform(items))
    np.testing.assert_array_equal(vectors, expected)


def test_ratings_of_films_go_in_as_they_are(data_dir):
    """MovieLens from its file, against pandas; then one reader, one who leaves."""
    pandas = pytest.importorskip("pandas")
    path = data_dir / "movielens-latest-small" / "ratings.csv.gz"
    report = Report()
    pipeline = Pipeline(
        [
            EventReader(user="userId", item="movieId", value="rating", timestamp="timestamp"),
            Cleaner(minimum=4),
        ]
    )
    events = pipeline.fit_transform(path, report=report)
    frame = pandas.read_csv(path)
    liked = frame[frame["rating"] >= 4]
    assert events.users[events.user_index].tolist() == liked["userId"].tolist()
    assert events.items[events.item_index].tolist() == liked["movieId"].tolist()
    assert events.values.tolist() == liked["rating"].tolist()
    assert (events.n_users, events.n_items) == tuple(frame[["userId", "movieId"]].nunique())
    assert report.as_dict()["Cleaner: minimum 4"]["taken"] == len(frame) - len(liked)
    assert check(events).ok
    model = recfuse.LabelledModel(recfuse.ItemNeighbours(k=20)).fit(events)
    other = forget_users(model, [414])
    rest = events.select(events.users[events.user_index] != 414)
    similarity = recfuse.ItemNeighbours(k=20).fit(rest.to_csr()).similarity_
    np.testing.assert_array_equal(other.model.similarity_.data, similarity.data)
    np.testing.assert_array_equal(other.model.similarity_.indices, similarity.indices)
    assert 414 not in other.users_
