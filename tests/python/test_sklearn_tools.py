"""The estimators among scikit-learn's tools: pipelines, tables in and out, grid searches."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.features import AttributeEncoder, TfidfEncoder
from recfuse.fusion import LinearFusion, StackingFusion
from recfuse.preprocess import L2Normalizer, MatrixCompletion, MinMax, MissingValues, Standardizer

sklearn = pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is not installed")
base = pytest.importorskip("sklearn.base")

FILLERS = [
    *(MissingValues(strategy) for strategy in ("mean", "median", "interpolate", "drop")),
    MatrixCompletion(factors=2, iterations=2),
]
KINDS = {"genre": "categorical", "year": "numeric"}
FILMS = {"genre": ["Comedy", "Drama", None, "Drama"], "year": [1994, 2001, None, 1999]}
TEXTS = ["red shoes", "blue shoes", "red hat", ""]


@pytest.fixture
def likes(rng) -> sp.csr_array:
    return sp.csr_array((rng.random((40, 30)) < 0.3).astype(np.float32))


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


@pytest.mark.parametrize("estimator", FILLERS, ids=repr)
def test_fillers_keep_names_and_the_rows_that_are_left(estimator, rng):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(rng.random((6, 2)), columns=["age", "price"], index=list("abcdef"))
    table.iloc[2, 1] = np.nan
    plain = base.clone(estimator).fit_transform(table)
    out = base.clone(estimator).set_output(transform="pandas").fit_transform(table)
    kept = "abdef" if estimator.get_params().get("strategy") == "drop" else "abcdef"
    assert list(out.columns) == ["age", "price"] and "".join(out.index) == kept
    np.testing.assert_array_equal(out.to_numpy(), plain)


def test_encoders_name_their_columns():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(FILMS, index=list("abcd"))
    encoder = AttributeEncoder(KINDS).set_output(transform="pandas")
    out = encoder.fit_transform(table)
    assert list(out.columns) == ["genre_Comedy", "genre_Drama", "year", "year_missing"]
    assert list(out.index) == list("abcd")
    np.testing.assert_array_equal(out, AttributeEncoder(KINDS).fit_transform(FILMS))
    small = AttributeEncoder(KINDS, dim=2).set_output(transform="pandas").fit_transform(FILMS)
    assert list(small.columns) == ["attributeencoder0", "attributeencoder1"]

    words = TfidfEncoder().fit(TEXTS)
    assert list(words.get_feature_names_out()) == words.terms_
    with pytest.raises(ValueError, match="TfidfEncoder: set_output must be 'default' where rows"):
        words.set_output(transform="pandas").transform(TEXTS)
    texts = pandas.Series(TEXTS, index=list("abcd"))
    dense = TfidfEncoder(2).set_output(transform="pandas")
    out = dense.fit_transform(texts)
    assert list(out.columns) == ["tfidfencoder0", "tfidfencoder1"]
    assert list(out.index) == list("abcd")
    assert isinstance(dense.encode(texts), np.ndarray)  # encoders return arrays, whatever is set
    assert TfidfEncoder(2).fit_transform(iter(TEXTS)).shape == (4, 2)


def test_encoders_stand_in_a_column_transformer():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    from sklearn.compose import ColumnTransformer

    table = pandas.DataFrame({**FILMS, "title": TEXTS})
    columns = ColumnTransformer(
        [
            ("title", TfidfEncoder(2), "title"),
            ("film", AttributeEncoder(KINDS), list(FILMS)),
        ]
    )
    out = columns.fit_transform(table)
    by_hand = [TfidfEncoder(2).fit_transform(TEXTS), columns.transformers_[1][1].transform(FILMS)]
    np.testing.assert_array_equal(out, np.hstack(by_hand))
    assert list(columns.get_feature_names_out())[1:3] == [
        "title__tfidfencoder1",
        "film__genre_Comedy",
    ]


def test_lists_and_sparse_rows_with_set_output():
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = MinMax().set_output(transform="pandas").fit_transform([[1.0, 2.0], [3.0, 6.0]])
    assert frame.to_numpy().tolist() == [[0, 0], [1, 1]] and list(frame.index) == [0, 1]
    with pytest.raises(ValueError, match="L2Normalizer: set_output must be 'default' where rows"):
        L2Normalizer().set_output(transform="pandas").fit_transform(sp.eye_array(3, format="csr"))


def test_set_output_makes_polars_and_refuses_others(rng):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    out = MinMax().set_output(transform="polars").fit_transform(rng.random((4, 2)))
    assert isinstance(out, polars.DataFrame) and out.columns == ["x0", "x1"]
    with pytest.raises(ValueError, match="set_output: transform must be one of"):
        MinMax().set_output(transform="arrow")


VECTORS = {
    "text": np.random.default_rng(6).standard_normal((30, 4)),
    "image": np.random.default_rng(7).standard_normal((30, 3)),
}
GRIDS = [
    (
        recfuse.AlternatingLeastSquares(iterations=2, random_state=0),
        {"factors": [2, 4], "regularization": [0.01, 1.0]},
        {},
    ),
    (recfuse.ItemNeighbours(), {"k": [1, 5], "weighting": [None, "bm25"]}, {}),
    (recfuse.UserNeighbours(), {"k": [1, 5, 20]}, {}),
    (
        recfuse.MultimodalRecommender({"neighbours": recfuse.ItemNeighbours(5)}),
        {"weights": [{"text": 1.0}, {"neighbours": 0.5, "image": 0.5}]},
        {"items": VECTORS},
    ),
]


@pytest.mark.parametrize(("model", "grid", "options"), GRIDS, ids=lambda x: type(x).__name__)
def test_a_grid_search_over_time(rng, model, grid, options):
    from sklearn.model_selection import GridSearchCV

    # Rows are the same users, before and after a moment: a fold fits the one, scores the other.
    before = sp.csr_array((rng.random((40, 30)) < 0.2).astype(np.float32))
    after = sp.csr_array((rng.random((40, 30)) < 0.1).astype(np.float32))
    both = sp.csr_array(sp.vstack([before, after]))

    def score(model, later, y=None):
        ids, _ = model.recommend(np.arange(40), k=5, user_items=before)
        hits = sp.csr_array(later).toarray()[np.arange(40)[:, None], ids] > 0
        return float(hits.mean())

    search = GridSearchCV(
        model, grid, scoring=score, cv=[(np.arange(40), np.arange(40, 80))], refit=False
    ).fit(both, **options)
    by_hand = [
        score(base.clone(model).set_params(**params).fit(before, **options), after)
        for params in search.cv_results_["params"]
    ]
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], by_hand)
    assert len(set(by_hand)) > 1


def test_a_grid_search_over_the_weights_of_a_sum(rng):
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GridSearchCV, KFold

    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(rng.random((50, 2)), columns=["text", "image"])
    y = 2 * table["text"] - table["image"] + 0.1 * rng.standard_normal(50)
    search = GridSearchCV(LinearFusion(), {"l2": [0.0, 10.0]}, cv=KFold(5)).fit(table, y)
    best = search.best_estimator_
    assert search.best_params_ == {"l2": 0.0} and list(best.weights_) == ["text", "image"]
    assert best.score(table, y) == pytest.approx(r2_score(y, best.predict(table)))
    swapped = best.predict(table[["image", "text"]])  # modalities go by name
    np.testing.assert_array_equal(swapped, best.predict(table))
    assert best.score(table, np.full(50, 3.0)) == r2_score(np.full(50, 3.0), best.predict(table))
    assert LinearFusion().fit([[1.0], [2.0]], [0.0, 0.0]).score([[1.0]], [0.0]) == 1

    blocks = {name: table[[name]].to_numpy() for name in table}
    stack = StackingFusion(Ridge()).set_params(base__alpha=0.25)
    assert stack.get_params()["base__alpha"] == 0.25
    stack.fit(blocks, y)
    assert stack.score(blocks, y) == pytest.approx(r2_score(y, stack.predict(blocks)))
    with pytest.raises(ValueError, match=r"score: targets must have shape \(50,\); got \(3,\)"):
        stack.score(blocks, y[:3])


def test_what_a_sum_refuses():
    matrix = np.eye(3)
    for wrong, words in ((matrix * 1j, "real numbers"), (sp.dok_matrix(matrix), "must be dense")):
        with pytest.raises(TypeError, match=f"fit: predictions must .*{words.split()[-1]}"):
            LinearFusion().fit(wrong, np.ones(3))
    with pytest.raises(ValueError, match=r"got nan \(NaN or infinity\) in row 2"):
        LinearFusion().fit([[0.0], [1.0], [np.nan]], np.ones(3))
