"""Items of an index that come, change and go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_ids, as_modalities, check_ids
from recfuse._modalities import check_widths, first_of, presence_flags
from recfuse._named import named

__all__ = ["IndexChanges"]

Scores = NDArray[np.float32]
Flags = NDArray[np.uint8]


class IndexChanges:
    """The part of `FusedIndex` that changes its items.

    After every change the answers are, bit by bit, those of an index built anew of the same items;
    a change that is refused leaves the index as it was.
    """

    _items: dict[str, Scores]
    _present: Flags | None
    _device: str

    def _rebuild(self, items: dict[str, Scores], present: Flags | None) -> None:
        raise NotImplementedError

    @named("add")
    def add(
        self, items: Mapping[str, ArrayLike], *, present: Mapping[str, ArrayLike] | None = None
    ) -> None:
        """Append items; their ids continue those of the index.

        Parameters
        ----------
        items : mapping modality -> array-like of shape (n_new, dim_m)
            Every modality of the index.
        present : mapping modality -> array-like of bool of shape (n_new,), optional
            Which of them have the modality; all where a modality is not named.

        Raises
        ------
        TypeError, ValueError
            If modalities or shapes differ from those of the index, or a value is not a number.
        """
        new = as_modalities(items, "items", list(self._items), self._device)
        check_widths(new, self._items)
        joined = {name: np.concatenate([self._items[name], new[name]]) for name in new}
        mask, flags = self._present, presence_flags(present, new)
        if mask is not None or flags is not None:
            shape = (len(first_of(new)), len(new))
            added = np.ones(shape, np.uint8) if flags is None else flags
            mask = np.concatenate([self._full_presence(), added])
        self._rebuild(joined, mask)

    @named("update")
    def update(
        self,
        ids: ArrayLike,
        items: Mapping[str, ArrayLike],
        *,
        present: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Replace the items `ids`, row i of `items` becoming item ``ids[i]``.

        Parameters
        ----------
        ids : int or array-like of int
            No id twice.
        items : mapping modality -> array-like of shape (n, dim_m)
            The modalities that change. The others, and who has them, stay; their matrices are used
            where they are.
        present : mapping modality -> array-like of bool of shape (n,), optional
            Of the modalities in `items`: which of these items have it from now on; all where a
            modality is not named.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `add`; if an id is unknown or repeats.

        Examples
        --------
        >>> import numpy as np, recfuse
        >>> index = recfuse.FusedIndex({"text": np.eye(2), "price": [[1.0], [2.0]]}, metric="dot")
        >>> index.update([0], {"price": [[5.0]]})
        >>> index.topk({"text": [[1.0, 0.0]], "price": [[1.0]]}, k=2)[1].tolist()
        [[6.0, 2.0]]
        """
        rows = self._known_ids(ids)
        new = as_modalities(items, "items", device=self._device)
        if not new or set(new) - set(self._items):
            raise ValueError(f"items must name modalities of {list(self._items)}; got {list(new)}")
        if len(first_of(new)) != len(rows):
            raise ValueError(
                f"items must have one row per id ({len(rows)}); got {len(first_of(new))}"
            )
        if len(np.unique(rows)) != len(rows):
            values, counts = np.unique(rows, return_counts=True)
            raise ValueError(f"ids must not repeat; got {values[counts > 1][0]} twice")
        check_widths(new, self._items)
        replaced = dict(self._items)
        for name, matrix in new.items():
            replaced[name] = np.array(replaced[name])
            replaced[name][rows] = matrix
        mask, flags = self._present, presence_flags(present, new)
        if mask is not None or flags is not None:
            mask = self._full_presence()
            columns = np.array([list(self._items).index(name) for name in new])
            mask[np.ix_(rows, columns)] = 1 if flags is None else flags
        self._rebuild(replaced, mask)

    @named("remove")
    def remove(self, ids: ArrayLike) -> None:
        """Remove items; the ids of those behind them move up, as in ``numpy.delete``.

        Parameters
        ----------
        ids : int or array-like of int

        Raises
        ------
        TypeError, IndexError
            If an id is unknown.
        """
        rows = self._known_ids(ids)
        kept = {name: np.delete(matrix, rows, axis=0) for name, matrix in self._items.items()}
        mask = None if self._present is None else np.delete(self._present, rows, axis=0)
        self._rebuild(kept, mask)

    def _known_ids(self, ids: ArrayLike) -> NDArray[np.int64]:
        return check_ids(as_ids(ids, "ids"), len(first_of(self._items)), "ids")

    def _full_presence(self) -> Flags:
        if self._present is not None:
            return self._present.copy()
        return np.ones((len(first_of(self._items)), len(self._items)), np.uint8)
