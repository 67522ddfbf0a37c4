"""Tables in, tables out: `set_output` of scikit-learn's transformers, without scikit-learn."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import check_choice

__all__ = ["NamedColumns", "SetOutput", "prefixed"]

Self = TypeVar("Self", bound="SetOutput")  # typing.Self needs Python 3.11


class SetOutput:
    """A transformer whose columns have names."""

    # The name that `sklearn.base.clone` copies.
    _sklearn_output_config: dict[str, str]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the columns of `transform`."""
        raise NotImplementedError

    def set_output(self: Self, *, transform: str | None = None) -> Self:
        """Choose what `transform` returns: 'default', 'pandas' or 'polars'; None changes nothing.

        Parameters
        ----------
        transform : {'default', 'pandas', 'polars'}, optional
            A data frame cannot hold sparse rows: `transform` raises ValueError for those.

        Returns
        -------
        self
        """
        if transform is not None:
            check_choice(transform, "set_output: transform", ("default", "pandas", "polars"))
            self._sklearn_output_config = {"transform": transform}
        return self

    def _as_output(self, x: Any, matrix: Any, kept: NDArray[np.bool_] | None = None) -> Any:
        """Return the transformed matrix, of the `kept` rows, as `set_output` asked for."""
        wanted = getattr(self, "_sklearn_output_config", {}).get("transform", "default")
        if wanted == "default" or not (sp.issparse(matrix) or isinstance(matrix, np.ndarray)):
            return matrix
        if sp.issparse(matrix):
            raise ValueError(
                f"{type(self).__name__}: set_output must be 'default' where rows are sparse; "
                f"got {wanted!r}"
            )
        names = [str(name) for name in self.get_feature_names_out()]
        if wanted == "polars":
            import polars

            return polars.DataFrame(matrix, schema=names)
        import pandas

        # Of pandas alone: a list has a method of that name.
        index = x.index if isinstance(x, (pandas.DataFrame, pandas.Series)) else None
        if index is not None and kept is not None:
            index = index[kept]
        return pandas.DataFrame(matrix, columns=names, index=index)


def prefixed(estimator: Any, n: int) -> NDArray[Any]:
    """Return the names of columns that mean nothing by themselves, as scikit-learn makes them."""
    name = type(estimator).__name__.lower()
    return np.array([f"{name}{column}" for column in range(n)], dtype=object)


class NamedColumns(SetOutput):
    """A transformer with one column out for each one in, under the same name."""

    n_features_in_: int
    feature_names_in_: NDArray[Any]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the columns: those of the fit, or those given, or x0, x1, ..."""
        if input_features is not None:
            return np.asarray(input_features, dtype=object)
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = np.array([f"x{i}" for i in range(self.n_features_in_)], dtype=object)
        return names

    def _note_columns(self, x: Any, n_features: int) -> None:
        """Remember how many columns a fit has seen, and their names if they are strings."""
        vars(self).pop("feature_names_in_", None)
        self.n_features_in_ = n_features
        names = list(getattr(x, "columns", ()))
        if names and all(isinstance(name, str) for name in names):
            self.feature_names_in_ = np.array(names, dtype=object)
