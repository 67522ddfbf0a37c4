"""Scales and missing values, against scikit-learn, pandas and NumPy by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import recfuse
from recfuse.errors import NotFittedError
from recfuse.interactions import Interactions
from recfuse.preprocess import (
    L2Normalizer,
    MatrixCompletion,
    MinMax,
    MissingValues,
    Pipeline,
    Report,
    Standardizer,
    _matrices,
)

NAN = np.nan


@pytest.fixture
def holes(rng) -> np.ndarray:
    x = rng.normal(3, 2, (50, 4)) * [1, 1e3, 1e-3, 1]
    x[rng.random(x.shape) < 0.2] = NAN
    return x


@pytest.fixture(params=[1 << 20, 12], ids=["one block", "blocks of 3 rows"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(_matrices, "_BLOCK_ELEMENTS", request.param)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Standardizer, "StandardScaler"), (MinMax, "MinMaxScaler")]
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scalers_equal_scikit_learn(holes, blocks, ours, theirs, dtype):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    holes[:, 3] = 7.25  # without spread
    holes = holes.astype(dtype)
    scaler = ours().fit(holes)
    # In float64 on both sides: scikit-learn would compute in float32 as well.
    oracle = getattr(preprocessing, theirs)().fit(holes.astype(np.float64))
    scaled = scaler.transform(holes)
    assert scaled.dtype == dtype
    expected = oracle.transform(holes.astype(np.float64))
    rtol, atol = (1e-12, 1e-13) if dtype == np.float64 else (1e-6, 1e-7)
    np.testing.assert_allclose(scaled, expected, rtol=rtol, atol=atol)
    np.testing.assert_allclose(scaler.inverse_transform(scaled), holes, rtol=rtol * 10)
    new = np.ones((2, 4), dtype)
    np.testing.assert_allclose(scaler.transform(new), oracle.transform(new), rtol=rtol)


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.floats(-1e6, 1e6) | st.just(NAN) | st.just(1e8 + 0.1),
    )
)
def test_scalers_equal_scikit_learn_on_anything(x):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of columns without any value
        for ours, theirs in (
            (Standardizer(), preprocessing.StandardScaler()),
            (MinMax(-2, 3), preprocessing.MinMaxScaler((-2, 3))),
        ):
            expected = theirs.fit_transform(x)
            # Least and greatest may be one rounding apart, which no division makes smaller.
            atol = 1e-9 * max(1, np.nanmax(np.abs(expected), initial=0))
            np.testing.assert_allclose(ours.fit_transform(x), expected, rtol=1e-9, atol=atol)


def test_a_column_that_differs_in_its_last_bit_has_no_spread():
    """What rounding alone makes is not blown up to standard scores; scikit-learn's bound."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = np.array([[0.1], [np.nextafter(0.1, 1)], [0.1]])
    scaler = Standardizer().fit(x)
    assert scaler.scale_.tolist() == [1.0] == preprocessing.StandardScaler().fit(x).scale_.tolist()
    np.testing.assert_allclose(scaler.transform(x), 0, atol=1e-16)


def test_minmax_of_another_range():
    x = [[0.0, 5.0], [10.0, 5.0], [5.0, NAN]]
    scaler = MinMax(-1, 1).fit(x)
    assert scaler.transform(x).tolist()[:2] == [[-1, -1], [1, -1]]
    assert scaler.inverse_transform([[0.0, -1.0]]).tolist() == [[5, 5]]
    with pytest.raises(ValueError, match="MinMax: low must be below high; got 1 and 1"):
        MinMax(1, 1).fit(x)


def test_a_column_without_values_stays_so():
    x = [[NAN, 1.0], [NAN, 2.0]]
    for scaler in (Standardizer(), MinMax()):
        assert np.isnan(scaler.fit_transform(x)[:, 0]).all()


def test_the_values_of_interactions_are_a_column():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    events = Interactions.from_arrays(["二", "b", "二"], [1, 2, 2], values=[1, 4, 5])
    scaler = Standardizer()
    scaled = scaler.fit_transform(events)
    expected = preprocessing.StandardScaler().fit_transform([[1.0], [4.0], [5.0]])[:, 0]
    np.testing.assert_array_equal(scaled.values, expected.astype(np.float32))
    assert scaled.users.tolist() == ["二", "b"]
    np.testing.assert_allclose(scaler.inverse_transform(scaled).values, [1, 4, 5], rtol=1e-6)


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.floats(-1e6, 1e6),
    )
)
def test_rows_of_length_one_equal_scikit_learn(x):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x[np.abs(x) < 1e-14] = 0  # scikit-learn takes shorter rows for zeros
    np.testing.assert_allclose(L2Normalizer().transform(x), preprocessing.normalize(x), rtol=1e-13)
    sparse = sp.csr_array(x)
    np.testing.assert_allclose(
        L2Normalizer().transform(sparse).toarray(),
        preprocessing.normalize(sparse.astype(np.float32).astype(float)).toarray(),
        rtol=1e-6,
    )


def test_rows_of_extreme_values_and_holes():
    x = np.array([[3e200, 4e200], [3e-200, 4e-200], [NAN, 2.0], [NAN, NAN], [0, 0]])
    expected = [[0.6, 0.8], [0.6, 0.8], [NAN, 1], [NAN, NAN], [0, 0]]
    np.testing.assert_allclose(L2Normalizer().transform(x), expected, rtol=1e-15)


@pytest.mark.parametrize("strategy", ["mean", "median", "constant"])
def test_fills_equal_scikit_learn(holes, strategy):
    impute = pytest.importorskip("sklearn.impute")
    ours = MissingValues(strategy, value=-1.5).fit(holes)
    theirs = impute.SimpleImputer(strategy=strategy, fill_value=-1.5).fit(holes)
    later = np.where(np.isnan(holes[::-1]), NAN, 9.0)
    for x in (holes, later):
        np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=1e-13)
    assert np.isnan(holes).any()  # the input is left alone


def test_the_mean_of_float32_is_summed_in_float64():
    x = np.full((1_000_000, 2), 0.1, np.float32)
    x[0] = NAN
    fill = MissingValues().fit(x).fill_
    np.testing.assert_allclose(fill, np.float64(np.float32(0.1)), rtol=1e-10)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.floats(-100, 100) | st.just(NAN)), min_size=1, max_size=12
    ).filter(lambda rows: not all(np.isnan(value) for _, value in rows))
)
def test_interpolation_in_time_equals_pandas(rows):
    pandas = pytest.importorskip("pandas")
    times = np.array(list(dict.fromkeys(time for time, _ in rows)))  # different ones
    values = np.array([value for _, value in rows])[: len(times)]
    if np.isnan(values).all():
        return
    filled = MissingValues("interpolate").fit_transform(values[:, None], times=times)[:, 0]
    series = pandas.Series(values, index=times).sort_index()
    expected = series.interpolate(method="index", limit_direction="both").loc[times]
    np.testing.assert_allclose(filled, expected.to_numpy(), rtol=1e-12, atol=1e-12)


def test_interpolation_without_and_with_dates():
    x = np.array([[0.0], [NAN], [NAN], [6.0], [NAN]])
    assert MissingValues("interpolate").fit_transform(x)[:, 0].tolist() == [0, 2, 4, 6, 6]
    dates = np.array(
        ["2024-01-01", "2024-01-04", "2024-01-02", "2024-01-07", "2023-01-01"], "M8[D]"
    )
    filled = MissingValues("interpolate").fit_transform(x, times=dates)[:, 0]
    assert filled.tolist() == [0, 3, 1, 6, 0]
    # Two known values at one time are their mean, in between and at the time itself.
    y = np.array([[2.0], [4.0], [NAN], [5.0]])
    times = [1, 1, 1, 3]
    assert MissingValues("interpolate").fit_transform(y, times=times)[2, 0] == 3


def test_no_rows_have_no_holes():
    none = np.empty((0, 2))
    for strategy in ("interpolate", "drop", "constant"):
        assert MissingValues(strategy).fit_transform(none).shape == (0, 2)
    assert MissingValues("interpolate").fit_transform(none, times=[]).shape == (0, 2)
    assert Standardizer().fit([[1.0, 2.0]]).transform(none).shape == (0, 2)


def test_drop_keeps_whole_rows(holes):
    report = Report()
    kept = MissingValues("drop").fit_transform(holes, report=report)
    whole = ~np.isnan(holes).any(axis=1)
    np.testing.assert_array_equal(kept, holes[whole])
    np.testing.assert_array_equal(MissingValues("drop").present(holes), whole)
    assert report.as_dict() == {
        "MissingValues: drop": {
            "before": 50, "after": whole.sum(), "taken": 50 - whole.sum(), "changed": 0,
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MissingValues("mode").fit([[1.0]]),
            ValueError,
            "strategy must be one of .*'mode'",
        ),
        (
            lambda: MissingValues().fit([[1.0, NAN]]),
            ValueError,
            "value in every column; .*column 1",
        ),
        (
            lambda: MissingValues("constant", value=NAN).fit([[1.0]]),
            ValueError,
            "value must be fin",
        ),
        (
            lambda: MissingValues("interpolate").fit_transform([[NAN]]),
            ValueError,
            "must have a value in every column; got none in column 0 of 1 rows",
        ),
        (
            lambda: MissingValues("interpolate").fit_transform([[1.0]], times=[1, 2]),
            ValueError,
            "times must have 1 entries, one per row; got 2",
        ),
        (
            lambda: MissingValues().fit_transform([[1.0]], times=[1]),
            ValueError,
            "times must be None for 'mean'",
        ),
        (lambda: MissingValues().transform([[1.0]]), NotFittedError, "fit must be called"),
        (lambda: Standardizer().transform([[1.0]]), NotFittedError, "fit must be called"),
        (
            lambda: Standardizer().fit([[1.0]]).transform([[1.0, 2.0]]),
            ValueError,
            "Standardizer: x must have 1 columns as in fit; got 2",
        ),
        (
            lambda: MissingValues().fit([[1.0]]).transform([[1.0, 2.0]]),
            ValueError,
            "MissingValues: x must have 1 columns as in fit; got 2",
        ),
        (
            lambda: Standardizer().fit([[1.0, 2.0], [1.0, np.inf]]),
            ValueError,
            "Standardizer: x must have no infinite values; got inf in row 1, column 1",
        ),
        (lambda: MinMax().fit(np.empty((0, 2))), ValueError, "MinMax: x must have at least 1 row"),
        (lambda: L2Normalizer().transform([1.0]), ValueError, "x must have 2 dimensions"),
        (lambda: L2Normalizer().transform([["a"]]), TypeError, "x must hold real numbers"),
        (lambda: L2Normalizer().transform([[1.0], [1.0, 2.0]]), ValueError, "rows of one length"),
        (
            lambda: L2Normalizer().transform(np.ma.masked_array([[1.0]])),
            TypeError,
            "dense array, not sparse and without a mask",
        ),
        (
            lambda: L2Normalizer().transform(sp.csr_array([[np.inf]])),
            ValueError,
            "x must be finite",
        ),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_pipeline_is_its_steps_and_leaves_them_alone(holes, tmp_path):
    steps = [MissingValues("median"), Standardizer(), L2Normalizer()]
    pipeline = Pipeline(steps).fit(holes)
    expected = holes
    for step in (MissingValues("median"), Standardizer(), L2Normalizer()):
        expected = step.fit_transform(expected)
    np.testing.assert_array_equal(pipeline.transform(holes), expected)
    assert not hasattr(steps[1], "scale_")
    pipeline.save(tmp_path / "流.recfuse")
    again = recfuse.load(tmp_path / "流.recfuse")
    np.testing.assert_array_equal(again.transform(holes), expected)
    assert b"pickle" not in (tmp_path / "流.recfuse").read_bytes()
    assert [type(step) for step in again.steps_] == [type(step) for step in steps]


def test_a_pipeline_undoes_its_steps(holes):
    pipeline = Pipeline([Standardizer(), MinMax(0, 2)]).fit(holes)
    x = pipeline.transform(holes)
    np.testing.assert_allclose(pipeline.inverse_transform(x), holes, rtol=1e-9)
    with pytest.raises(TypeError, match="must all have an inverse; got L2Normalizer"):
        Pipeline([L2Normalizer()]).fit(x).inverse_transform(x)


def test_a_pipeline_passes_times_on(holes):
    times = np.cumsum(np.arange(50))
    expected = MissingValues("interpolate").fit_transform(holes, times=times)
    pipeline = Pipeline([Standardizer(), Pipeline([MissingValues("interpolate")])])
    x = pipeline.fit(holes, times=times).transform(holes, times=times)
    np.testing.assert_allclose(pipeline.steps_[0].inverse_transform(x), expected, rtol=1e-9)


def test_an_error_leaves_the_old_fit_in_place(holes):
    pipeline = Pipeline([Standardizer(), MissingValues()]).fit(holes)
    expected = pipeline.transform(holes)
    with pytest.raises(ValueError, match="in every column"):
        pipeline.fit(np.full((3, 4), NAN))
    np.testing.assert_array_equal(pipeline.transform(holes), expected)


@pytest.mark.parametrize(
    ("steps", "error"), [([], ValueError), ("ab", TypeError), ([len], TypeError), (None, TypeError)]
)
def test_what_is_no_pipeline(steps, error):
    with pytest.raises(error, match="Pipeline: steps must "):
        Pipeline(steps).fit([[1.0]])


def test_completion_equals_the_specification_of_als(rng, tmp_path):
    """Ridge regressions in float64 for the folded-in rows, from the fitted factors of columns."""
    true = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 8)) * 5 + 100
    x = np.where(rng.random(true.shape) < 0.25, NAN, true)
    step = MatrixCompletion(3, regularization=0.05, iterations=40).fit(x)
    filled = step.transform(x)
    gaps = np.isnan(x)
    np.testing.assert_array_equal(filled[~gaps], x[~gaps])

    mean, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    y, v = step.model_.item_factors_.astype(float), step.model_.item_biases_.astype(float)
    for row in np.flatnonzero(gaps.any(axis=1)):
        known = ~gaps[row]
        z = ((x[row] - mean) / scale)[known].astype(np.float32)
        features = np.column_stack([y[known], np.ones(known.sum())])
        targets = z - step.model_.global_mean_ - v[known]
        system = features.T @ features + 0.05 * np.eye(4)
        solved = np.linalg.solve(system, features.T @ targets)
        expected = step.model_.global_mean_ + solved[3] + v + y @ solved[:3]
        np.testing.assert_allclose(
            filled[row, ~known], (expected * scale + mean)[~known], rtol=1e-5
        )

    error = np.abs(filled - true)[gaps].mean()
    assert error < 0.25 * np.abs(MissingValues().fit_transform(x) - true)[gaps].mean()
    step.save(tmp_path / "f")
    np.testing.assert_array_equal(recfuse.load(tmp_path / "f").transform(x), filled)


def test_completion_of_rows_that_say_nothing():
    x = np.array([[1.0, 4.0], [3.0, 8.0], [2.0, 6.0]])
    report = Report()
    step = MatrixCompletion(1).fit(x)
    filled = step.transform([[NAN, NAN], [2.0, 6.0]], report=report)
    np.testing.assert_allclose(filled, [[2, 6], [2, 6]], atol=1e-5)  # the means of the columns
    assert report.as_dict()["MatrixCompletion"]["changed"] == 1
    assert step.transform(x.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="MatrixCompletion: x must have a value in every column"):
        MatrixCompletion(1).fit([[1.0, NAN]])
    with pytest.raises(ValueError, match=r"MatrixCompletion: x must have 2 columns .*; got 3"):
        step.transform([[1.0, 3.0, 2.0]])
