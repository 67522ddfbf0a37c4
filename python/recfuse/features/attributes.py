"""Item attributes, categorical and numeric, as dense vectors: one more modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._named_columns import SetOutput, prefixed
from recfuse.features._lsa import components
from recfuse.features._table import columns, is_missing, items_of

__all__ = ["AttributeEncoder"]

Category = str | int
Kind = Literal["categorical", "numeric"]


class AttributeEncoder(SetOutput, Estimator):
    r"""Vectors of attributes such as genre, director, cast, price and year.

    A categorical field of an item becomes the vector of its categories, each weighted by its
    inverse document frequency, of length one. A numeric field becomes its standard score and an
    indicator of a missing value, together of mean square one over the fitted items. The field of
    weight :math:`w_f` is scaled by :math:`\sqrt{w_f}`, so that the inner product of two items is
    the weighted sum of the cosines of their categorical fields and the products of their numeric
    ones:

    .. math:: x \cdot y = \sum_f w_f \, x_f \cdot y_f

    Parameters
    ----------
    fields : sequence of str, or mapping of str to {'categorical', 'numeric'}
        The fields to use. A sequence means that all are categorical.
    dim : int, optional
        Reduce the vectors to so many dimensions by a truncated singular value decomposition of the
        fitted items (latent semantic analysis [1]_), which keeps inner products as well as any
        `dim` dimensions can. By default one column per category, and two per numeric field.
    weighting : {'idf', None}, default='idf'
        'idf' is ``log((1 + n) / (1 + count)) + 1`` for a category of `count` of the n fitted items;
        None is one for every category.
    weights : mapping of str to float, optional
        Weight of each field, finite and not negative; 1 where none is given.
    separator : str, optional
        Splits a text cell into several categories: ``"|"`` for ``"Comedy|Drama"``.
    min_count : int, default=1
        Categories of fewer fitted items are left out.

    Attributes
    ----------
    categories_ : dict of str to list
        Known categories of each categorical field in the order of their columns: integers by
        value, then texts by code point.
    idf_ : dict of str to ndarray, float64
        Weight of each of them.
    means_, scales_ : dict of str to float
        Mean and standard deviation of each numeric field; a constant field has the scale 1.
    components_ : ndarray of shape (n_columns, dim), float64, or None
        The projection. Largest singular value first; the entry of largest magnitude of every
        column is positive. Columns beyond the rank of the data are zero.

    Notes
    -----
    With `dim`, vectors repeat bit by bit on one machine; across machines they agree to rounding.

    References
    ----------
    .. [1] S. Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 41(6), 1990.

    Examples
    --------
    >>> from recfuse.features import AttributeEncoder
    >>> films = {"genre": ["Comedy|Drama", "Comedy", None], "director": ["宮崎 駿", "Varda", ""]}
    >>> encoder = AttributeEncoder(["genre", "director"], separator="|", weighting=None).fit(films)
    >>> encoder.transform(films).round(2)
    array([[0.71, 0.71, 0.  , 1.  ],
           [1.  , 0.  , 1.  , 0.  ],
           [0.  , 0.  , 0.  , 0.  ]], dtype=float32)
    >>> encoder.present(films)
    array([ True,  True, False])
    >>> encoder.unknown({"genre": ["Western|Comedy"], "director": ["Varda"]})
    {'genre': 1, 'director': 0}
    """

    _input_tags = ("dict", "categorical", "allow_nan")

    categories_: dict[str, list[Category]]
    idf_: dict[str, NDArray[np.float64]]
    means_: dict[str, float]
    scales_: dict[str, float]
    components_: NDArray[np.float64] | None

    def __init__(
        self,
        fields: Sequence[str] | Mapping[str, Kind],
        *,
        dim: int | None = None,
        weighting: Literal["idf"] | None = "idf",
        weights: Mapping[str, float] | None = None,
        separator: str | None = None,
        min_count: int = 1,
    ) -> None:
        self.fields = fields
        self.dim = dim
        self.weighting = weighting
        self.weights = weights
        self.separator = separator
        self.min_count = min_count

    def fit(self, items: Any, y: Any = None) -> AttributeEncoder:
        """Learn categories, frequencies, means and, with `dim`, the projection.

        Parameters
        ----------
        items : mapping of str to column, data frame or Arrow table
            Columns of equal length. A categorical cell is a text, an integer or a list of them; a
            numeric one a finite number. None, NaN, blank texts and empty lists are missing. A
            category that an item has twice counts once.
        y : ignored

        Returns
        -------
        AttributeEncoder
            self.

        Raises
        ------
        ValueError
            If a parameter is out of its range, a field is missing from `items`, columns differ in
            length, a number is infinite, or `dim` is not below the number of items and columns.
        TypeError
            If a cell is of no such kind.
        """
        learned = type(self)(**self.get_params(deep=False))
        learned._learn(items)
        vars(self).update(vars(learned))  # all or nothing: an error leaves the old fit in place
        return self

    def transform(self, items: Any) -> Any:
        """Return the vectors of items, which need not be those of `fit`.

        Parameters
        ----------
        items : mapping of str to column, data frame or Arrow table

        Returns
        -------
        ndarray of shape (n_items, dim) or (n_items, n_columns), float32
            An item without any known attribute is a zero row; see `present`. Categories that `fit`
            has not seen are left out; see `unknown`. A missing number is the mean. Or what
            `set_output` asked for.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            As in `fit`.
        """
        matrix, _ = self._encode(self._columns(items))
        if self.components_ is None:
            return self._as_output(items, np.asarray(matrix.toarray(), np.float32))
        return self._as_output(items, np.asarray(matrix @ self.components_, np.float32))

    def fit_transform(self, items: Any, y: Any = None) -> Any:
        """Fit, and return the vectors of the same items."""
        return self.fit(items, y).transform(items)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the columns.

        Returns
        -------
        ndarray of str
            ``genre_Comedy`` for a category, ``price`` and ``price_missing`` for a number; with
            `dim`, attributeencoder0, attributeencoder1, ...
        """
        check_fitted(self, "categories_")
        if self.components_ is not None:
            return prefixed(self, self.components_.shape[1])
        names = [f"{field}_{name}" for field, known in self.categories_.items() for name in known]
        names += [name for field in self.means_ for name in (field, f"{field}_missing")]
        return np.array(names, dtype=object)

    def present(self, items: Any) -> NDArray[np.bool_]:
        """Tell which items have any known category or any number, for `present` of the ops.

        Parameters
        ----------
        items : mapping of str to column, data frame or Arrow table

        Returns
        -------
        ndarray of shape (n_items,), bool
        """
        return self._encode(self._columns(items))[1]

    def unknown(self, items: Any) -> dict[str, int]:
        """Count, per categorical field, the values that `transform` leaves out.

        Parameters
        ----------
        items : mapping of str to column, data frame or Arrow table

        Returns
        -------
        dict of str to int
            A value counts once for every item that has it.
        """
        table = self._columns(items)
        return {
            field: sum(
                category not in place
                for row in _category_lists(table[field], field, self.separator)
                for category in row
            )
            for field, place in self._places().items()
        }

    def _learn(self, items: Any) -> None:
        kinds = self._check_parameters()
        table = columns(items, kinds, "AttributeEncoder")
        self.categories_, self.idf_, self.means_, self.scales_ = {}, {}, {}, {}
        for field, cells in table.items():
            if kinds[field] == "numeric":
                self._fit_numbers(field, cells)
            else:
                self._fit_categories(field, cells)
        self.components_ = None
        if self.dim is not None:
            self.components_ = components(self._encode(table)[0], int(self.dim), "AttributeEncoder")

    def _columns(self, items: Any) -> dict[str, list[Any]]:
        check_fitted(self, "categories_")
        return columns(items, [*self.categories_, *self.means_], "AttributeEncoder")

    def _places(self) -> dict[str, dict[Category, int]]:
        return {
            field: {category: place for place, category in enumerate(categories)}
            for field, categories in self.categories_.items()
        }

    def _fit_numbers(self, field: str, cells: list[Any]) -> None:
        values = _numbers(cells, field)
        known = values[~np.isnan(values)]
        self.means_[field] = float(known.mean()) if len(known) else 0.0
        scale = float(known.std()) if len(known) else 0.0
        # The rounded mean of equal numbers may miss them by a bit, which is no deviation.
        self.scales_[field] = scale if scale > 1e-12 * abs(self.means_[field]) else 1.0

    def _fit_categories(self, field: str, cells: list[Any]) -> None:
        rows = _category_lists(cells, field, self.separator)
        counts = Counter(category for row in rows for category in row)
        kept = [category for category, count in counts.items() if count >= self.min_count]
        kept.sort(key=lambda category: (isinstance(category, str), category))
        frequency = np.array([counts[category] for category in kept], np.float64)
        idf = np.log((1 + len(cells)) / (1 + frequency)) + 1
        self.categories_[field] = kept
        self.idf_[field] = idf if self.weighting == "idf" else np.ones(len(kept))

    def _encode(self, table: Mapping[str, list[Any]]) -> tuple[sp.csr_array, NDArray[np.bool_]]:
        """Return one row per item, and which items have any attribute."""
        n_items = len(next(iter(table.values())))
        blocks, absent = [], np.ones(n_items, np.bool_)
        places = self._places()
        for field in self.categories_:
            rows = _category_lists(table[field], field, self.separator)
            blocks.append(_multi_hot(rows, places[field], self.idf_[field]))
            absent &= np.diff(blocks[-1].indptr) == 0
        numbers = {field: _numbers(table[field], field) for field in self.means_}
        for values in numbers.values():
            absent &= np.isnan(values)
        for field, values in numbers.items():
            missing = np.isnan(values)
            score = np.where(missing, 0, (values - self.means_[field]) / self.scales_[field])
            # An item of which nothing is known is no item with a missing number: it is zero.
            blocks.append(sp.csr_array(np.column_stack([score, missing & ~absent])))
        weights = self.weights or {}
        fields = [*self.categories_, *self.means_]
        scaled = [
            block * np.sqrt(weights.get(field, 1.0))
            for field, block in zip(fields, blocks, strict=True)
        ]
        return sp.csr_array(sp.hstack(scaled, format="csr")), ~absent

    def _check_parameters(self) -> dict[str, str]:
        """Return the kind of each field."""
        fields = self.fields
        if isinstance(fields, str) or not fields:
            raise ValueError(f"AttributeEncoder: fields must name a field; got {fields!r}")
        kinds: dict[str, str] = (
            dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields, "categorical")
        )
        for field, kind in kinds.items():
            if kind not in ("categorical", "numeric"):
                raise ValueError(
                    f"AttributeEncoder: fields[{field!r}] must be 'categorical' or 'numeric'; "
                    f"got {kind!r}"
                )
        if self.weighting not in ("idf", None):
            raise ValueError(
                f"AttributeEncoder: weighting must be 'idf' or None; got {self.weighting!r}"
            )
        for name, value in (("dim", self.dim), ("min_count", self.min_count)):
            if value is not None and value < 1:
                raise ValueError(f"AttributeEncoder: {name} must be at least 1; got {value}")
        for field, weight in (self.weights or {}).items():
            if field not in kinds:
                raise ValueError(
                    f"AttributeEncoder: weights must name fields of {list(kinds)}; got {field!r}"
                )
            if not (np.isfinite(weight) and weight >= 0):
                raise ValueError(
                    f"AttributeEncoder: weights[{field!r}] must be finite and not negative; "
                    f"got {weight}"
                )
        return kinds


def _category_lists(
    cells: Sequence[Any], field: str, separator: str | None
) -> list[list[Category]]:
    """Return the distinct categories of each cell, in the order of the cell."""
    lists = []
    for row, cell in enumerate(cells):
        parts = items_of(cell)
        if parts is None:
            parts = cell.split(separator) if separator and isinstance(cell, str) else [cell]
        parts = [part.strip() if isinstance(part, str) else part for part in parts]
        known = [part for part in parts if not is_missing(part)]
        for category in known:
            if not isinstance(category, (str, int, np.integer)):
                raise TypeError(
                    f"AttributeEncoder: items[{field!r}] must hold texts, integers or lists of "
                    f"them; got {type(category).__name__} in row {row}"
                )
        lists.append(list(dict.fromkeys(known)))
    return lists


def _numbers(cells: Sequence[Any], field: str) -> NDArray[np.float64]:
    """Return the numbers of a column; NaN is missing."""
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        if not isinstance(cell, (int, float, np.integer, np.floating)):
            raise TypeError(
                f"AttributeEncoder: items[{field!r}] must hold numbers; "
                f"got {type(cell).__name__} in row {row}"
            )
        if not np.isfinite(float(cell)):
            raise ValueError(
                f"AttributeEncoder: items[{field!r}] must be finite; got {cell} in row {row}"
            )
        values[row] = cell
    return values


def _multi_hot(
    rows: list[list[Category]], place: Mapping[Category, int], idf: NDArray[np.float64]
) -> sp.csr_array:
    """Return rows of length one with the weights of their known categories."""
    codes = [sorted(place[category] for category in row if category in place) for row in rows]
    indptr = np.cumsum([0, *map(len, codes)])
    indices = np.fromiter((code for row in codes for code in row), np.intp, int(indptr[-1]))
    data = idf[indices]
    lengths = np.diff(indptr)
    norms = np.sqrt(np.bincount(np.repeat(np.arange(len(rows)), lengths), data**2, len(rows)))
    data = data / np.repeat(norms, lengths)
    return sp.csr_array((data, indices, indptr), shape=(len(rows), len(place)))
