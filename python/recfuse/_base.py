"""What every estimator shares: parameters as in scikit-learn, and the check for `fit`."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from recfuse.errors import NotFittedError

if TYPE_CHECKING:
    from recfuse._retrieval import Retrieval

__all__ = ["Estimator", "check_fitted"]

Self = TypeVar("Self", bound="Estimator")  # typing.Self needs Python 3.11


class Estimator:
    """Base of the estimators: what ``__init__`` is given is stored untouched, by name."""

    # To scikit-learn: what `fit` takes (a sparse matrix), and whether it needs targets.
    _input_tags: tuple[str, ...] = ("sparse",)
    _is_regressor = False

    @classmethod
    @functools.cache  # a signature takes longer than a small search
    def _parameter_names(cls) -> tuple[str, ...]:
        return tuple(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; those of nested estimators as ``name__param``."""
        params: dict[str, Any] = {name: getattr(self, name) for name in self._parameter_names()}
        if deep:
            for name, value in list(params.items()):
                if hasattr(value, "get_params") and not isinstance(value, type):
                    params.update({f"{name}__{k}": v for k, v in value.get_params().items()})
        return params

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name (``name__param`` for a nested estimator's); return self."""
        known = self._parameter_names()
        for name, value in params.items():
            outer, _, inner = name.partition("__")
            if outer not in known:
                raise ValueError(
                    f"{type(self).__name__}: parameter must be one of {', '.join(known)}; "
                    f"got {outer!r}"
                )
            if inner:
                getattr(self, outer).set_params(**{inner: value})
            else:
                setattr(self, outer, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn, where it is used, what this estimator takes."""
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="regressor" if self._is_regressor else None,
            target_tags=TargetTags(required=self._is_regressor),
            regressor_tags=RegressorTags() if self._is_regressor else None,
            transformer_tags=TransformerTags() if hasattr(self, "transform") else None,
            input_tags=InputTags(**{"two_d_array": False, **dict.fromkeys(self._input_tags, True)}),
            requires_fit=not getattr(self, "_transforms_unfitted", False),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file; `recfuse.load` reads it."""
        from recfuse.persistence import save

        save(self, path)

    def _recommender(self) -> Estimator:
        """Return the model that makes the lists: of a pipeline the one at its end."""
        return self

    def _retrieval(self) -> Retrieval:
        """Return the dense search that answers as this model does; TypeError if there is none."""
        raise TypeError(
            "model must answer by dense search, as AlternatingLeastSquares and "
            "MultimodalRecommender of factors and content do; got "
            f"{type(self).__name__}"
        )

    def _holds_retrieval(self) -> bool:
        """Whether the arrays of that search are those of the model, so that its file has it."""
        return False

    def _read_later(self, name: str, read: Callable[[], Any]) -> None:
        """Let `name` be what `read` returns, once somebody asks for it."""
        vars(self).setdefault("_pending", {})[name] = read

    def _read_pending(self) -> None:
        for name in list(vars(self).get("_pending", ())):
            getattr(self, name)

    if not TYPE_CHECKING:  # names that do not exist are still found by mypy

        def __getattr__(self, name: str) -> Any:
            """Read what a large file has of the model when it is first used."""
            read = vars(self).get("_pending", {}).get(name)
            if read is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return vars(self).setdefault(name, read())  # of several threads the first one's

    def __getstate__(self) -> dict[str, Any]:
        """Read what is still in the file; copies and pickles do without it."""
        self._read_pending()
        return {name: value for name, value in vars(self).items() if name != "_pending"}

    def __repr__(self) -> str:
        """Show only what differs from the defaults, as scikit-learn does."""
        signature = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if not _same(value, signature[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def _same(value: Any, default: Any) -> bool:
    # Only plain values are compared: an array argument has no single truth value.
    return value is default or (type(value) is type(default) and value == default)


def check_fitted(estimator: Estimator, attribute: str) -> None:
    """Raise NotFittedError unless `fit` has set `attribute`."""
    if not hasattr(estimator, attribute):
        raise NotFittedError(
            f"{type(estimator).__name__}: fit must be called before this method; "
            "got an unfitted model"
        )
