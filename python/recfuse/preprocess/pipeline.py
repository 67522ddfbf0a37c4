"""Steps one after another, fitted, applied and saved as one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from recfuse._base import Estimator, check_fitted
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

    Attributes
    ----------
    steps_ : list
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
    """

    takes_times = True
    steps_: list[Any]

    def __init__(self, steps: Sequence[Any]) -> None:
        self.steps = steps

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
            rows are in the order of the reader's `item_labels`.

        Returns
        -------
        What the last step returns; with a model at the end, what the model is fitted on.

        Raises
        ------
        TypeError
            If a step is none, or there are `fit_params` and no model.
        ValueError
            If there are no steps.
        Exception
            Those of the steps. The pipeline then stays as it was.
        """
        steps = [copy.deepcopy(step) for step in self._checked()]
        if fit_params and hasattr(steps[-1], "transform"):
            raise TypeError(
                f"Pipeline: steps must end in a model that takes {list(fit_params)}; "
                f"got {type(steps[-1]).__name__}"
            )
        for step in steps:
            if isinstance(step, Step):
                x = step.fit_transform(x, report=report, **_times_of(step, times))
            elif hasattr(step, "transform"):
                x = step.fit(x).transform(x)
            else:
                step.fit(x, **fit_params)
        self.steps_ = steps
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
        check_fitted(self, "steps_")
        model = self.steps_[-1]
        if not hasattr(model, "recommend"):
            raise TypeError(f"Pipeline: steps must end in a model; got {type(model).__name__}")
        return model.recommend(*args, **options)

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


def _times_of(step: Step, times: ArrayLike | None) -> dict[str, Any]:
    return {"times": times} if step.takes_times and times is not None else {}
