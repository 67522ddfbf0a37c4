"""The estimators in scikit-learn's hands: its own checks, clones, pipelines and grid searches."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.features import AttributeEncoder, TfidfEncoder
from recfuse.fusion import CommonSpace, FactorMap, LinearFusion, StackingFusion
from recfuse.preprocess import (
    Cleaner,
    EventReader,
    L2Normalizer,
    MatrixCompletion,
    MinMax,
    MissingValues,
    Pipeline,
    Standardizer,
)

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
FILLERS = [
    *(MissingValues(strategy) for strategy in ("mean", "median", "interpolate", "drop")),
    MissingValues("constant", value=3.0),
    MatrixCompletion(factors=2, iterations=2),
]
REGRESSORS = [
    LinearFusion(),
    LinearFusion("gd", tol=1e-6),
    LinearFusion("sgd", tol=1e-6, fit_intercept=True, nonnegative=True),
]
WORDS = "the error says the same in the words of this library"
TYPE = "complex numbers are refused by a TypeError: it is their type"
EXPECTED = {
    "check_complex_data": TYPE,
    "check_dtype_object": "columns of objects are refused: they may hold anything",
    "check_n_features_in_after_fitting": WORDS,
    "check_estimators_empty_data_messages": "rows without columns are rows, and stay so",
}
EXPECTED_REGRESSOR = {
    "check_fit_score_takes_y": "the second argument of fit is called targets",
    "check_estimators_unfitted": "NotFittedError is recfuse's, and a ValueError as there",
    "check_n_features_in_after_fitting": WORDS,
    "check_complex_data": TYPE,
    "check_estimators_empty_data_messages": WORDS,
    "check_supervised_y_2d": "a matrix of targets is refused, not flattened with a warning",
    "check_requires_y_none": WORDS,
}


@pytest.fixture
def likes(rng) -> sp.csr_array:
    return sp.csr_array((rng.random((40, 30)) < 0.3).astype(np.float32))


@pytest.mark.parametrize(
    "estimator", [*SCALERS, *FILLERS, *REGRESSORS, Pipeline([Standardizer()])], ids=repr
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator):
    expected = EXPECTED_REGRESSOR if estimator in REGRESSORS else EXPECTED
    results = checks.check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise"
    )
    assert sum(result["status"] == "passed" for result in results) > 35
    # A reason for what passes is no reason.
    failed = {result["check_name"] for result in results if result["status"] == "xfail"}
    assert failed == set(expected)


class Case(NamedTuple):
    """An estimator of other input than a matrix of features, and what to give and ask it."""

    estimator: Any
    x: Any
    ask: Any
    y: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed


def histories() -> sp.csr_array:
    draw = np.random.default_rng(5).random((40, 30))
    return sp.csr_array((draw < 0.3).astype(np.float32))


def content(n: int = 30) -> dict[str, Any]:
    draw = np.random.default_rng(6).standard_normal
    return {"text": draw((n, 4)).astype(np.float32), "image": draw((n, 3)).astype(np.float32)}


def lists(model):
    return model.recommend([0, 3], k=5)


def fused() -> Any:
    models = {"als": recfuse.AlternatingLeastSquares(2, iterations=2, random_state=0)}
    return recfuse.MultimodalRecommender(models, weights={"als": 0.5, "text": 0.3, "image": 0.2})


EVENTS = recfuse.Interactions.from_arrays(["ann", "ann", "bo", "cy"], ["tea", "茶", "茶", "tea"])
TABLE = {"who": ["ann", "ann", "bo"], "what": ["tea", "茶", "茶"]}
FILMS = {"genre": ["Comedy", "Drama", None, "Drama"], "year": [1994, 2001, None, 1999]}
TEXTS = ["red shoes", "blue shoes", "red hat", ""]
CASES = [
    *(Case(model, histories(), lists) for model in MODELS),
    Case(fused(), histories(), lists, options={"items": content()}),
    Case(
        recfuse.MultimodalRecommender({"neighbours": recfuse.ItemNeighbours(5)}, k=5),
        histories(),
        lists,
    ),
    Case(
        recfuse.LabelledModel(recfuse.ItemNeighbours(2)), EVENTS, lambda m: m.recommend(["bo"], k=1)
    ),
    Case(EventReader(user="who", item="what"), TABLE, lambda m: m.transform(TABLE).to_csr()),
    Case(TfidfEncoder(), TEXTS, lambda m: m.transform(TEXTS)),
    Case(TfidfEncoder(dim=2), TEXTS, lambda m: m.transform(TEXTS)),
    Case(
        AttributeEncoder({"genre": "categorical", "year": "numeric"}),
        FILMS,
        lambda m: m.transform(FILMS),
    ),
    Case(CommonSpace(dim=2), content(), lambda m: m.transform(content())["text"]),
    Case(FactorMap(), content(), lambda m: m.predict(content()), content(30)["text"]),
    Case(
        StackingFusion(LinearFusion(fit_intercept=True)),
        content(),
        lambda m: m.predict(content()),
        content(30)["text"][:, 0],
    ),
]
WITHOUT_DATA = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


def fitted(case: Case, estimator: Any = None) -> Any:
    estimator = base.clone(case.estimator if estimator is None else estimator)
    assert estimator.fit(case.x, case.y, **case.options) is estimator
    return estimator


def as_bytes(answer: Any) -> list[bytes]:
    if sp.issparse(answer):
        answer = (answer.indptr, answer.indices, answer.data)
    parts = answer if isinstance(answer, tuple) else (answer,)
    return [np.asarray(part, None if part.dtype != object else str).tobytes() for part in parts]


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.estimator)[:40])


@each_case
@pytest.mark.parametrize("check", WITHOUT_DATA)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_without_data(case, check):
    getattr(checks, check)(type(case.estimator).__name__, case.estimator)


@each_case
@pytest.mark.filterwarnings("ignore")
def test_what_takes_no_matrix_of_features_says_so(case):
    # Its checks with data give such a matrix; what follows here is the same with proper data.
    tags = base.clone(case.estimator).__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    results = checks.check_estimator(base.clone(case.estimator), on_skip=None)
    assert len(results) == 1


def test_a_cleaner_has_nothing_to_fit():
    tags = Cleaner().__sklearn_tags__()
    assert not tags.input_tags.two_d_array and not tags.requires_fit
    assert len(Cleaner(minimum=2).transform(EVENTS)) == 0
    for check in WITHOUT_DATA:
        getattr(checks, check)("Cleaner", Cleaner())


@each_case
def test_before_fit(case):
    for error in (recfuse.errors.NotFittedError, ValueError, AttributeError):
        with pytest.raises(error, match="fit must be called before"):
            case.ask(base.clone(case.estimator))


@each_case
def test_fits_alike(case):
    model = fitted(case)
    before = pickle.dumps(case.x) if not isinstance(case.x, recfuse.Interactions) else None
    answer = as_bytes(case.ask(model))
    state = set(vars(model))
    case.ask(model)
    assert set(vars(model)) == state  # asking leaves nothing behind that asking once has not
    model.fit(case.x, case.y, **case.options)  # idempotent
    assert as_bytes(case.ask(model)) == answer
    assert as_bytes(case.ask(fitted(case, model))) == answer  # a clone
    assert as_bytes(case.ask(pickle.loads(pickle.dumps(model)))) == answer
    assert before is None or pickle.dumps(case.x) == before


@each_case
def test_fit_learns_underscored_attributes_alone(case):
    estimator = base.clone(case.estimator)
    given = {name: id(value) for name, value in estimator.get_params(deep=False).items()}
    estimator.fit(case.x, case.y, **case.options)
    assert {n: id(v) for n, v in estimator.get_params(deep=False).items()} == given
    learned = set(vars(estimator)) - set(given)
    assert all(name.startswith("_") or name.endswith("_") for name in learned)
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)


@each_case
def test_ends_scikit_learns_pipeline(case):
    from sklearn.pipeline import Pipeline as Steps

    options = {f"model__{name}": value for name, value in case.options.items()}
    steps = Steps([("pass", "passthrough"), ("model", base.clone(case.estimator))])
    assert as_bytes(case.ask(steps.fit(case.x, case.y, **options)[-1])) == as_bytes(
        case.ask(fitted(case))
    )


@pytest.mark.parametrize("estimator", [*MODELS, *SCALERS, *FILLERS], ids=repr)
def test_clones_have_parameters_alone(estimator, likes):
    copy = base.clone(estimator).fit(likes if estimator in MODELS else likes.toarray())
    again = base.clone(copy)
    assert again.get_params() == estimator.get_params()
    assert not any(name.endswith("_") for name in vars(again))
