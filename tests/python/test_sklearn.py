"""The estimators in scikit-learn's hands: its own checks, clones, pipelines and grid searches."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.preprocess import L2Normalizer, MinMax, Standardizer

sklearn = pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is not installed")
base = pytest.importorskip("sklearn.base")
checks = pytest.importorskip("sklearn.utils.estimator_checks")

MODELS = [
    recfuse.AlternatingLeastSquares(factors=2, iterations=1, random_state=0),
    recfuse.ItemNeighbours(),
    recfuse.UserNeighbours(),
    recfuse.Popularity(),
]
SCALERS = [Standardizer(), MinMax(), L2Normalizer()]
WORDS = "the error says the same in the words of this library"
EXPECTED = {
    "check_complex_data": "complex numbers are refused by a TypeError: it is their type",
    "check_dtype_object": "columns of objects are refused: they may hold anything",
    "check_fit2d_predict1d": WORDS,
    "check_n_features_in_after_fitting": WORDS,
    "check_estimator_sparse_tag": WORDS,
    "check_estimator_sparse_array": WORDS,
    "check_estimator_sparse_matrix": WORDS,
    "check_estimators_empty_data_messages": "rows without columns are rows, and stay so",
}
EXPECTED_UNFITTED = {
    "check_transformer_general": "a row's length is its own, so any number of columns will do",
    "check_transformers_unfitted": "there is nothing to fit",
}


@pytest.fixture
def likes(rng) -> sp.csr_array:
    return sp.csr_array((rng.random((40, 30)) < 0.3).astype(np.float32))


@pytest.mark.parametrize("estimator", [*MODELS, *SCALERS], ids=lambda e: type(e).__name__)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator):
    # Models take a sparse matrix of interactions; scikit-learn has few checks for those.
    expected = {} if estimator in MODELS else dict(EXPECTED)
    if isinstance(estimator, L2Normalizer):
        expected |= EXPECTED_UNFITTED
    results = checks.check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise"
    )
    assert any(result["status"] == "passed" for result in results)


@pytest.mark.parametrize("estimator", [*MODELS, *SCALERS], ids=lambda e: type(e).__name__)
def test_clones_have_parameters_alone(estimator, likes):
    copy = base.clone(estimator).fit(likes if estimator in MODELS else likes.toarray())
    again = base.clone(copy)
    assert again.get_params() == estimator.get_params()
    assert not any(name.endswith("_") for name in vars(again))


def test_a_model_ends_a_pipeline(likes):
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfTransformer(), recfuse.ItemNeighbours(k=5)).fit(likes)
    alone = recfuse.ItemNeighbours(k=5).fit(TfidfTransformer().fit_transform(likes))
    got = pipeline[-1].recommend([0, 1], k=4)
    np.testing.assert_array_equal(got[0], alone.recommend([0, 1], k=4)[0])


def test_scalers_stand_in_pipelines_and_keep_names(rng):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = pandas.DataFrame(rng.random((6, 2)), columns=["age", "price"], index=list("abcdef"))
    pipeline = make_pipeline(Standardizer(), MinMax(), L2Normalizer()).set_output(
        transform="pandas"
    )
    out = pipeline.fit_transform(table)
    assert list(out.columns) == ["age", "price"] and list(out.index) == list("abcdef")
    assert list(pipeline.get_feature_names_out()) == ["age", "price"]
    ours = base.clone(Standardizer().set_output(transform="pandas")).fit(table)  # a clone keeps it
    theirs = StandardScaler().set_output(transform="pandas").fit(table)
    pandas.testing.assert_frame_equal(ours.transform(table), theirs.transform(table))
    numbers = ours.set_output(transform="default").transform(table)
    assert isinstance(numbers, np.ndarray)
    assert list(Standardizer().fit(table.to_numpy()).get_feature_names_out()) == ["x0", "x1"]


def test_set_output_makes_polars_and_refuses_others(rng):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    out = MinMax().set_output(transform="polars").fit_transform(rng.random((4, 2)))
    assert isinstance(out, polars.DataFrame) and out.columns == ["x0", "x1"]
    with pytest.raises(ValueError, match="set_output: transform must be one of"):
        MinMax().set_output(transform="arrow")


def test_a_grid_search_over_time(rng):
    from sklearn.model_selection import GridSearchCV

    # Rows are the same users, before and after a moment: a fold fits the one, scores the other.
    before = sp.csr_array((rng.random((40, 30)) < 0.2).astype(np.float32))
    after = sp.csr_array((rng.random((40, 30)) < 0.1).astype(np.float32))
    both = sp.csr_array(sp.vstack([before, after]))

    def score(model, later, y=None):
        ids, _ = model.recommend(np.arange(40), k=5, user_items=before)
        hits = sp.csr_array(later).toarray()[np.arange(40)[:, None], ids] > 0
        return float(hits.mean())

    grid = {"factors": [2, 4], "regularization": [0.01, 1.0]}
    model = recfuse.AlternatingLeastSquares(iterations=2, random_state=0)
    search = GridSearchCV(
        model, grid, scoring=score, cv=[(np.arange(40), np.arange(40, 80))], refit=False
    ).fit(both)
    by_hand = [
        score(base.clone(model).set_params(**params).fit(before), after)
        for params in search.cv_results_["params"]
    ]
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], by_hand)
    assert len(set(by_hand)) > 1
