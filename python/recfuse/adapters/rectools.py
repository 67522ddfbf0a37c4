"""RecTools: exact top-k behind the protocol of `rectools.models.rank.Ranker`."""

from __future__ import annotations

import contextlib
import enum
import importlib
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import (
    as_csr,
    as_ids,
    as_int,
    as_matrix,
    as_num_threads,
    check_choice,
    check_ids,
)
from recfuse._named import named
from recfuse.compat.faiss._search import ByDistance
from recfuse.index import FusedIndex

__all__ = ["Ranker", "Replaced", "replace_rankers"]

_DISTANCES = ("dot", "cosine", "euclidean")
_DENSE = 1 << 24  # numbers of sparse subjects that are dense at a time
# Where RecTools's models look for a ranker, and by what name.
_USERS = (
    ("rectools.models.vector", "ImplicitRanker"),
    ("rectools.models.ease", "ImplicitRanker"),
    ("rectools.models.nn.transformers.lightning", "TorchRanker"),
    ("rectools.models.nn.transformers.similarity", "TorchRanker"),
)


class Ranker:
    """Rank objects for subjects by their vectors, in place of `ImplicitRanker` and `TorchRanker`.

    Parameters
    ----------
    distance : rectools.models.rank.Distance, or {'dot', 'cosine', 'euclidean'}
    subjects_factors : array-like or sparse of shape (n_subjects, dim)
        Sparse for 'dot' alone: interactions, of which `objects_factors` are the similarities.
        Tensors of PyTorch, too.
    objects_factors : array-like of shape (n_objects, dim)
    num_threads : int, default=0
        The result does not depend on it.
    use_gpu : bool, default=False
        The same as ``device='cuda'``, which never becomes the CPU.
    device : {'auto', 'cpu', 'cuda'}, GPUs by number or torch.device, default='auto'
        'euclidean' is ranked on the CPU.
    batch_size, dtype
        Of `TorchRanker`, ignored: the size of a batch changes no result, and vectors are float32.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong or the vectors have different lengths.
    DeviceError
        If a GPU is asked for and cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.adapters.rectools import Ranker
    >>> ranker = Ranker("dot", np.eye(2), [[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    >>> subjects, objects, scores = ranker.rank([1, 0], k=2)
    >>> subjects.tolist(), objects.tolist(), scores.tolist()
    ([1, 1, 0, 0], [2, 1, 1, 0], [3.0, 1.0, 2.0, 1.0])
    """

    @named("ranker")
    def __init__(
        self,
        distance: Any,
        subjects_factors: Any,
        objects_factors: Any,
        num_threads: int = 0,
        use_gpu: bool = False,
        *,
        device: Any = "auto",
        batch_size: int | None = None,
        dtype: Any = None,
    ) -> None:
        del batch_size, dtype
        name = distance.value if isinstance(distance, enum.Enum) else distance
        check_choice(name, "distance", _DISTANCES)
        if sp.issparse(subjects_factors) and name != "dot":
            raise ValueError(f"subjects_factors must be dense for distance {name!r}; got sparse")
        self.distance = distance
        self._device = "cuda" if use_gpu else str(device)
        self._objects = as_matrix(objects_factors, "objects_factors", self._device)
        self._subjects = (
            as_csr(subjects_factors, "subjects_factors")
            if sp.issparse(subjects_factors)
            else as_matrix(subjects_factors, "subjects_factors")
        )
        if self._subjects.shape[1] != self._objects.shape[1]:
            raise ValueError(
                f"subjects_factors must have {self._objects.shape[1]} columns, as "
                f"objects_factors; got shape {self._subjects.shape}"
            )
        self._by_distance = ByDistance(self._objects) if name == "euclidean" else None
        self._index = FusedIndex(
            {"": self._objects},
            metric="cosine" if name == "cosine" else "dot",
            device=self._device,
            num_threads=as_num_threads(num_threads),
        )

    @named("rank")
    def rank(
        self,
        subject_ids: Any,
        k: int | None = None,
        filter_pairs_csr: Any = None,
        sorted_object_whitelist: Any = None,
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.float32]]:
        """Find the k best objects of every subject, exactly.

        Parameters
        ----------
        subject_ids : array-like of int
        k : int, optional
            All objects by default.
        filter_pairs_csr : sparse of shape (n, n_objects), optional
            One row per entry of `subject_ids`; stored entries are left out, whatever their value.
        sorted_object_whitelist : array-like of int, optional
            Only these objects.

        Returns
        -------
        subjects : ndarray of shape (n_pairs,)
            Every subject as often as it has objects, in the order of `subject_ids`.
        objects : ndarray of shape (n_pairs,), int64
            Score descending (distance ascending), then id ascending.
        scores : ndarray of shape (n_pairs,), float32
            Inner products, cosines, or Euclidean distances.

        Raises
        ------
        TypeError, ValueError, IndexError
            If an argument is wrong, `k` < 1, or an id is unknown.
        """
        n_objects = self._index.n_items
        subjects = check_ids(
            as_ids(subject_ids, "subject_ids"), self._subjects.shape[0], "subject_ids"
        )
        k = n_objects if k is None else as_int(k, "k")
        if k < 1 and n_objects:
            raise ValueError(f"k must be at least 1; got {k}")
        exclude = None if filter_pairs_csr is None else as_csr(filter_pairs_csr, "filter_pairs_csr")
        if exclude is not None and exclude.shape != (len(subjects), n_objects):
            raise ValueError(
                f"filter_pairs_csr must have shape {(len(subjects), n_objects)} "
                f"(subject_ids, objects); got {exclude.shape}"
            )
        allow = None
        if sorted_object_whitelist is not None:
            allow = as_ids(sorted_object_whitelist, "sorted_object_whitelist")
            check_ids(allow, n_objects, "sorted_object_whitelist")
            n_objects = len(allow)
        found = [
            self._search(subjects[part], min(k, n_objects), _rows(exclude, part), allow)
            for part in self._parts(len(subjects))
            if n_objects
        ]
        if not found:
            return subjects[:0], np.empty(0, np.int64), np.empty(0, np.float32)
        ids, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        kept = ids >= 0
        return (
            np.repeat(np.asarray(subject_ids), kept.sum(axis=1)),
            ids[kept].astype(np.int64),
            scores[kept],
        )

    def _parts(self, n: int) -> list[slice]:
        step = n
        if sp.issparse(self._subjects):
            step = max(1, _DENSE // max(1, self._subjects.shape[1]))
        return [slice(first, first + step) for first in range(0, n, max(1, step))]

    def _search(
        self, subjects: NDArray[np.int64], k: int, exclude: Any, allow: Any
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        queries: Any = self._subjects[subjects]
        if sp.issparse(queries):
            queries = queries.toarray()
        if self._by_distance is None:
            ids, scores = self._index.topk({"": queries}, k, exclude=exclude, allow=allow)
            return ids, scores
        squares, ids = self._by_distance.search(queries, k, exclude=exclude, allow=allow)
        return ids, np.sqrt(squares)


def _rows(matrix: sp.csr_array | None, part: slice) -> sp.csr_array | None:
    return None if matrix is None else matrix[part]


class Replaced:
    """The rankers that `replace_rankers` has replaced; a context manager that puts them back."""

    def __init__(self, found: list[tuple[ModuleType, str]]) -> None:
        self._before = [(module, name, getattr(module, name)) for module, name in found]
        for module, name in found:
            setattr(module, name, Ranker)

    def undo(self) -> None:
        """Give RecTools's models their own rankers again."""
        for module, name, ranker in self._before:
            if getattr(module, name) is Ranker:
                setattr(module, name, ranker)

    def __enter__(self) -> Replaced:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()


def replace_rankers() -> Replaced:
    """Let the models of RecTools rank by `Ranker`: vector models, EASE, and transformers.

    Returns
    -------
    Replaced
        With `undo`; as a context manager, it undoes at the end.

    Raises
    ------
    ImportError
        If RecTools is not installed.

    Examples
    --------
    >>> from recfuse.adapters.rectools import replace_rankers
    >>> with replace_rankers():  # doctest: +SKIP
    ...     recommendations = model.recommend(users, dataset, k=10, filter_viewed=True)
    """
    importlib.import_module("rectools.models.vector")
    found = []
    for module_name, name in _USERS:
        with contextlib.suppress(ImportError):  # the networks want PyTorch and Lightning
            found.append((importlib.import_module(module_name), name))
    return Replaced(found)
