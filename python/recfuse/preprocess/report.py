"""What is wrong with data, before a model is fitted on them: counted, and told in one table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._named import named
from recfuse._table import aligned
from recfuse.interactions import Interactions
from recfuse.preprocess._matrices import as_features, real_blocks

__all__ = ["CheckReport", "Finding", "check"]

Bools = NDArray[np.bool_]
Index = NDArray[np.intp]

# What a model refuses, or would rank by nonsense; all else may be meant.
_ERRORS = ("NaN", "infinite", "out of range")


@dataclass(frozen=True)
class Finding:
    """How many of how many: 3 of 9,000 vectors of items['text'] are zero."""

    subject: str
    check: str
    count: int
    of: int

    @property
    def is_error(self) -> bool:
        """Whether a model would refuse the data for it."""
        return self.check in _ERRORS and self.count > 0

    @property
    def share(self) -> float:
        """Count as a share of all; 0 of nothing is 0."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; print it for the table.

    Attributes
    ----------
    findings : tuple of Finding
        Every check, also those that found nothing.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that a model would refuse."""
        return not any(finding.is_error for finding in self.findings)

    def as_dict(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return count and total by subject and check, as plain numbers (JSON)."""
        table: dict[str, dict[str, dict[str, int]]] = {}
        for f in self.findings:
            table.setdefault(f.subject, {})[f.check] = {"count": f.count, "of": f.of}
        return table

    def __str__(self) -> str:
        header = ["data", "check", "count", "of", "share", ""]
        rows = []
        for f in self.findings:
            mark = "error" if f.is_error else ""
            rows.append([f.subject, f.check, f"{f.count:,}", f"{f.of:,}", f"{f.share:.1%}", mark])
        return aligned(header, rows)


@named("check")
def check(
    interactions: Any = None,
    items: Mapping[str, Any] | None = None,
    users: Mapping[str, Any] | None = None,
) -> CheckReport:
    """Look for what spoils a model: missing, infinite, zero and repeated values, wrong ids, gaps.

    Nothing is changed, and nothing that can be counted is refused.

    Parameters
    ----------
    interactions : Interactions, or sparse of shape (n_users, n_items), optional
    items, users : mapping of modality to array of shape (n_items, dim) or (n_users, dim), optional
        The vectors of `MultimodalRecommender.fit` and `FusedIndex`.

    Returns
    -------
    CheckReport
        For interactions: events with NaN or infinite values, with ids outside of the matrix, of
        value 0 or less, that repeat an earlier pair; users and items without events. For each
        modality: NaN and infinite cells, vectors of zeros, vectors equal to an earlier one; ids of
        the interactions for which it has no row ("out of range"); how many items, and how many of
        the events, have a usable vector (finite and not zero): its coverage.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there is nothing to check, or an array has not two dimensions.

    Examples
    --------
    >>> import recfuse
    >>> from recfuse.preprocess import check
    >>> likes = recfuse.Interactions.from_arrays(["a", "a", "b"], [1, 2, 1])
    >>> report = check(likes, {"text": [[1.0, 0.0], [float("nan"), 1.0]]})
    >>> report.ok, report.as_dict()["items['text']"]["events covered"]
    (False, {'count': 2, 'of': 3})
    >>> print(report)
    data                          check  count  of  share
    interactions                    NaN      0   3   0.0%
    interactions               infinite      0   3   0.0%
    interactions           out of range      0   3   0.0%
    interactions        value 0 or less      0   3   0.0%
    interactions         repeated pairs      0   3   0.0%
    interactions   users without events      0   2   0.0%
    interactions   items without events      0   2   0.0%
    items['text']                   NaN      1   4  25.0%  error
    items['text']              infinite      0   4   0.0%
    items['text']          zero vectors      0   2   0.0%
    items['text']      repeated vectors      0   2   0.0%
    items['text']          out of range      0   2   0.0%
    items['text']         items covered      1   2  50.0%
    items['text']        events covered      2   3  66.7%
    """
    if interactions is None and not items and not users:
        raise ValueError("interactions must be given, or items or users; got nothing")
    findings: list[Finding] = []
    rows = columns = None
    shape = (0, 0)
    if interactions is not None:
        rows, columns, values, shape = _events(interactions)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        findings += _of_events(rows, columns, values, inside, shape)
        rows, columns = rows[inside], columns[inside]
    for side, vectors, index, n in (("items", items, columns, 1), ("users", users, rows, 0)):
        if vectors is not None and not isinstance(vectors, Mapping):
            raise TypeError(f"{side} must map modality to array; got {type(vectors).__name__}")
        for name, matrix in (vectors or {}).items():
            label = f"{side}[{name!r}]"
            checked = as_features(matrix, label, finite=False)
            findings += _of_vectors(checked, label, side, index, shape[n])
    return CheckReport(tuple(findings))


def _events(x: Any) -> tuple[Index, Index, NDArray[Any], tuple[int, int]]:
    if isinstance(x, Interactions):
        return x.user_index, x.item_index, x.values, (x.n_users, x.n_items)
    if not sp.issparse(x) or x.ndim != 2:
        raise TypeError(f"interactions must be Interactions or sparse; got {type(x).__name__}")
    if x.format == "csr":  # by hand: SciPy would follow indices that lead out of the matrix
        counts = np.diff(x.indptr)
        if len(counts) != x.shape[0] or (counts < 0).any() or counts.sum() != len(x.indices):
            raise ValueError("interactions must have an indptr that counts its indices")
        return np.repeat(np.arange(x.shape[0]), counts), x.indices, x.data, x.shape
    coo = x if x.format == "coo" else x.tocoo()
    return coo.row, coo.col, coo.data, x.shape


def _of_events(
    rows: Index, columns: Index, values: NDArray[Any], inside: Bools, shape: tuple[int, int]
) -> list[Finding]:
    n = len(rows)
    pair = rows[inside].astype(np.int64) * shape[1] + columns[inside]
    counts: dict[str, tuple[Any, int]] = {
        "NaN": (np.count_nonzero(np.isnan(values)), n),
        "infinite": (np.count_nonzero(np.isinf(values)), n),
        "out of range": (n - np.count_nonzero(inside), n),
        "value 0 or less": (np.count_nonzero(values <= 0), n),
        "repeated pairs": (len(pair) - len(np.unique(pair)), n),
        "users without events": (shape[0] - len(np.unique(rows[inside])), shape[0]),
        "items without events": (shape[1] - len(np.unique(columns[inside])), shape[1]),
    }
    return [Finding("interactions", name, int(c), of) for name, (c, of) in counts.items()]


def _of_vectors(
    matrix: NDArray[Any], label: str, side: str, index: Index | None, n_ids: int
) -> list[Finding]:
    n = len(matrix)
    nan: Any = 0
    infinite: Any = 0
    repeated = 0
    zero: list[Bools] = []
    usable: list[Bools] = []
    seen: set[bytes] = set()
    for block in real_blocks(matrix):
        nan += np.count_nonzero(np.isnan(block))
        infinite += np.count_nonzero(np.isinf(block))
        zero.append((block == 0).all(axis=1))
        usable.append(np.isfinite(block).all(axis=1) & ~zero[-1])
        # Digests instead of vectors: a set of the vectors would be a second matrix.
        block += 0.0  # -0.0 equals 0.0
        for row in block[usable[-1]]:
            digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            repeated += digest in seen
            seen.add(digest)
    is_zero = np.concatenate([*zero, np.zeros(0, bool)])
    is_usable = np.concatenate([*usable, np.zeros(0, bool)])
    counts: dict[str, tuple[Any, int]] = {
        "NaN": (nan, matrix.size),
        "infinite": (infinite, matrix.size),
        "zero vectors": (np.count_nonzero(is_zero), n),
        "repeated vectors": (repeated, n),
    }
    if index is not None:
        covered = is_usable[:n_ids]
        counts["out of range"] = (max(0, n_ids - n), n_ids)
        counts[f"{side} covered"] = (np.count_nonzero(covered), n_ids)
        known = index[index < n]
        counts["events covered"] = (np.count_nonzero(is_usable[known]), len(index))
    else:
        counts[f"{side} covered"] = (np.count_nonzero(is_usable), n)
    return [Finding(label, name, int(c), of) for name, (c, of) in counts.items()]
