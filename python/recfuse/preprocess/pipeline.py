"""Steps one after another, fitted, applied and saved as one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._named import named
from recfuse._retrieval import Retrieval
from recfuse.preprocess._step import Report, Step

__all__ = ["Pipeline"]


class Pipeline(Step):
    """Run steps one after another: what one returns is what the next one gets.

    Parameters
    ----------
    steps : sequence of estimators
        Steps of `recfuse.preprocess`, others with `fit` and `transform` (`AttributeEncoder`), or
        pipelines; at the end also a model (`LabelledModel` speaks in the ids of an `EventReader`).
        They are copied: `fit` leaves them alone.
    encoders : mapping of modality to estimator, optional
        What makes the vectors of content for a model at the end that fuses it: a `TfidfEncoder` of
        titles, say, or a pipeline that scales columns. The ``items=`` of `fit` then are what these
        take, None where an item has nothing; modalities without an encoder are vectors already.

    Attributes
    ----------
    steps_ : list
        The fitted copies.
    encoders_ : dict of str to estimator
        The fitted copies.

    Notes
    -----
    `save` writes one file without code; `recfuse.load` reads it. Ids of users and items come back
    as they were: integers of any size, strings of any language, bytes, dates, UUIDs, and tuples of
    such.

    Examples
    --------
    >>> import numpy as np, os, recfuse, tempfile
    >>> from recfuse.preprocess import L2Normalizer, MissingValues, Pipeline, Standardizer
    >>> x = np.array([[1.0, 5.0], [np.nan, 7.0], [4.0, 9.0]])
    >>> pipeline = Pipeline([MissingValues("mean"), Standardizer(), L2Normalizer()]).fit(x)
    >>> path = os.path.join(tempfile.mkdtemp(), "features.recfuse")
    >>> pipeline.save(path)
    >>> bool((recfuse.load(path).transform(x) == pipeline.transform(x)).all())
    True

    From a table to lists, in one object and one file:

    >>> from recfuse.preprocess import Cleaner, EventReader
    >>> table = {"who": ["ann", "ann", "bo", "bo"], "what": ["茶", "tea", "茶", "rice"]}
    >>> model = recfuse.LabelledModel(recfuse.ItemNeighbours(k=2))
    >>> reader = EventReader(user="who", item="what")
    >>> pipeline = Pipeline([reader, Cleaner(duplicates="sum"), model]).fit(table)
    >>> pipeline.recommend(["bo"], k=1)[0].tolist()
    [['tea']]
    >>> visitor = {"who": ["zoe", "zoe"], "what": ["rice", "茶"]}
    >>> users, items, scores = pipeline.recommend_new_users(visitor, k=1)
    >>> users.tolist(), items.tolist()
    (['zoe'], [['tea']])
    """

    takes_times = True
    steps_: list[Any]
    encoders_: dict[str, Any]

    def __init__(self, steps: Sequence[Any], encoders: Mapping[str, Any] | None = None) -> None:
        self.steps = steps
        self.encoders = encoders

    @property
    def _input_tags(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the first step takes."""
        tags: tuple[str, ...] = self._checked()[0]._input_tags
        return tags

    @property
    def n_features_in_(self) -> int:
        """Number of columns that the first step has seen, where it counts them."""
        check_fitted(self, "steps_")
        return int(self.steps_[0].n_features_in_)

    def fit(
        self, x: Any, y: Any = None, *, times: ArrayLike | None = None, **fit_params: Any
    ) -> Pipeline:
        """Fit every step on what the steps before it return; as `fit_transform`. Returns self."""
        self.fit_transform(x, times=times, **fit_params)
        return self

    def fit_transform(
        self,
        x: Any,
        y: Any = None,
        *,
        times: ArrayLike | None = None,
        report: Report | None = None,
        **fit_params: Any,
    ) -> Any:
        """Fit every step and return what they make of `x`.

        Parameters
        ----------
        x : what the first step takes
        times : array-like of shape (n,), optional
            For the steps that take times (`MissingValues`).
        report : Report, optional
            Every step writes its lines.
        **fit_params
            For `fit` of the model at the end: ``items=`` of a `MultimodalRecommender`, say, whose
            rows are in the order of the reader's `item_labels`. What has an encoder is encoded.

        Returns
        -------
        What the last step returns; with a model at the end, what the model is fitted on.

        Raises
        ------
        TypeError
            If a step or an encoder is none, or there are `fit_params` or encoders and no model.
        ValueError
            If there are no steps, or ``items=`` lacks a modality that has an encoder.
        Exception
            Those of the steps. The pipeline then stays as it was.
        """
        steps = [copy.deepcopy(step) for step in self._checked()]
        if fit_params and hasattr(steps[-1], "transform"):
            raise TypeError(
                f"Pipeline: steps must end in a model that takes {list(fit_params)}; "
                f"got {type(steps[-1]).__name__}"
            )
        encoders = {name: copy.deepcopy(e) for name, e in self._checked_encoders(steps).items()}
        if encoders:
            items = _content(fit_params.get("items"), encoders)
            for name, encoder in encoders.items():
                items[name] = _encoded(encoder, items[name], fit=True)
            fit_params["items"] = items
        for step in steps:
            if isinstance(step, Step):
                x = step.fit_transform(x, report=report, **_times_of(step, times))
            elif hasattr(step, "transform"):
                x = step.fit(x).transform(x)
            else:
                step.fit(x, **fit_params)
        self.steps_, self.encoders_ = steps, encoders
        return x

    def transform(
        self, x: Any, *, times: ArrayLike | None = None, report: Report | None = None
    ) -> Any:
        """Return what the fitted steps, without a model at the end, make of `x`.

        `times`, `report` and errors are those of `fit_transform`; NotFittedError before `fit`.
        """
        check_fitted(self, "steps_")
        for step in self.steps_:
            if isinstance(step, Step):
                x = step.transform(x, report=report, **_times_of(step, times))
            elif hasattr(step, "transform"):
                x = step.transform(x)
        return x

    def recommend(self, *args: Any, **options: Any) -> Any:
        """Call `recommend` of the model at the end; TypeError where there is none."""
        return self._recommender().recommend(*args, **options)

    def recommend_new_users(
        self, x: Any, k: int = 10, *, report: Report | None = None, **options: Any
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
        """Recommend items to the people of a table, by its events alone.

        Parameters
        ----------
        x : table or path
            As in `EventReader.transform`; its users may be unknown, its items are those of the fit.
        k : int, default=10
        report : Report, optional
        **options
            For `recommend_new_users` of the model.

        Returns
        -------
        users : ndarray of shape (n,)
            Ids, in order of first appearance.
        items, scores : ndarray of shape (n, k)
            As `LabelledModel.recommend`; items are rows where the model knows no ids.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If the steps do not begin with an `EventReader` and end in a `LabelledModel` or
            `MultimodalRecommender`.
        Exception
            Those of the steps and the model.
        """
        model: Any = self._recommender("recommend_new_users")
        if not hasattr(self.steps_[0], "transform_new_users"):
            raise TypeError(
                "Pipeline: steps must begin with an EventReader; "
                f"got {type(self.steps_[0]).__name__}"
            )
        events = self.steps_[0].transform_new_users(x, report=report)
        for step in self.steps_[1:-1]:
            events = step.transform(events, report=report)
        items, scores = model.recommend_new_users(events, k, **options)[:2]
        return events.users, items, scores

    @named("encode")
    def encode(self, items: Mapping[str, Any]) -> dict[str, Any]:
        """Return the vectors of content that the model at the end takes.

        Parameters
        ----------
        items : mapping of modality to what its encoder takes
            Some of the modalities; None is what an item has nothing of.

        Returns
        -------
        dict of str to ndarray of shape (n, dim)
            A row of zeros for None.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If `items` are no mapping.
        """
        check_fitted(self, "encoders_")
        return {
            name: _encoded(self.encoders_[name], raw) if name in self.encoders_ else raw
            for name, raw in _content(items, {}).items()
        }

    @named("recommend_new_items")
    def recommend_new_items(
        self, users: Any, items: Mapping[str, Any], k: int = 10
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rank items that the model does not have by their content, encoded as that of the fit.

        Parameters
        ----------
        users : sequence of ids
        items : mapping of modality to what its encoder takes
            As in `encode`.
        k : int, default=10

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Rows of `items`; -1 for padding.
        scores : ndarray of shape (n, k), float32

        Raises
        ------
        NotFittedError, KeyError, TypeError, ValueError
            Before `fit`; if a user is unknown; if the steps end in no model that fuses content.
        """
        model: Any = self._recommender("recommend_new_items")
        found: tuple[Any, Any] = model.recommend_new_items(users, self.encode(items), k)
        return found

    def _recommender(self, does: str = "recommend") -> Any:
        check_fitted(self, "steps_")
        model = self.steps_[-1] if isinstance(self.steps_, list) and self.steps_ else None
        if not isinstance(model, Estimator) or not hasattr(model, does):
            wanted = "a model" if does == "recommend" else f"a model that has {does}"
            raise TypeError(f"Pipeline: steps must end in {wanted}; got {type(model).__name__}")
        return model._recommender()

    def _retrieval(self) -> Retrieval:
        return self._recommender()._retrieval()  # type: ignore[no-any-return]

    def _holds_retrieval(self) -> bool:
        model = self.steps_[-1]
        return hasattr(model, "recommend") and bool(model._holds_retrieval())

    def inverse_transform(self, x: Any) -> Any:
        """Undo the steps, the last one first.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If a step has no inverse; the message names it.
        """
        check_fitted(self, "steps_")
        for step in self.steps_:
            if not hasattr(step, "inverse_transform"):
                raise TypeError(
                    "Pipeline: steps must all have an inverse; "
                    f"got {type(step).__name__}, which has none"
                )
        for step in reversed(self.steps_):
            x = step.inverse_transform(x)
        return x

    def _checked(self) -> list[Any]:
        if isinstance(self.steps, (str, bytes)) or not isinstance(self.steps, Sequence):
            raise TypeError(
                f"Pipeline: steps must be a sequence of steps; got {type(self.steps).__name__}"
            )
        if not self.steps:
            raise ValueError("Pipeline: steps must have at least 1 step; got 0")
        for position, step in enumerate(self.steps, start=1):
            last = position == len(self.steps)
            if not isinstance(step, Estimator) or not (
                hasattr(step, "transform") or (last and hasattr(step, "recommend"))
            ):
                raise TypeError(
                    "Pipeline: steps must be estimators with transform, or a model at the end; "
                    f"got {step!r} as step {position}"
                )
        return list(self.steps)

    def _checked_encoders(self, steps: list[Any]) -> Mapping[str, Any]:
        encoders = {} if self.encoders is None else self.encoders
        if not isinstance(encoders, Mapping):
            raise TypeError(
                f"Pipeline: encoders must map modality to estimator; got {type(encoders).__name__}"
            )
        for name, encoder in encoders.items():
            if not isinstance(encoder, Estimator) or not hasattr(encoder, "transform"):
                raise TypeError(
                    f"Pipeline: encoders[{name!r}] must be an estimator with transform; "
                    f"got {encoder!r:.99}"
                )
        if encoders and hasattr(steps[-1], "transform"):
            raise TypeError(
                "Pipeline: steps must end in a model where there are encoders; "
                f"got {type(steps[-1]).__name__}"
            )
        return encoders


def _content(items: Any, encoders: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(items, Mapping):
        raise TypeError(f"items must map modality to content; got {type(items).__name__}")
    missing = [name for name in encoders if name not in items]
    if missing:
        raise ValueError(f"items must have what has an encoder; got no {missing}")
    return dict(items)


def _encoded(encoder: Any, raw: Any, *, fit: bool = False) -> Any:
    """Return the vectors of content, zeros for what is None."""
    there = [x is not None for x in raw] if isinstance(raw, (list, tuple)) else [True]
    known = [x for x in raw if x is not None] if any(there) and not all(there) else raw
    vectors_of_known = (encoder.fit(known) if fit else encoder).transform(known)
    if known is raw:
        return vectors_of_known
    some = np.asarray(vectors_of_known)
    vectors = np.zeros((len(raw), some.shape[1]), some.dtype)
    vectors[there] = some
    return vectors


def _times_of(step: Step, times: ArrayLike | None) -> dict[str, Any]:
    return {"times": times} if step.takes_times and times is not None else {}
