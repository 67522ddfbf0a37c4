"""Histories and modalities with parts left out, another choice every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_modalities
from recfuse._named import named
from recfuse.training._checks import at_least

__all__ = ["item_dropout", "modality_dropout"]

Vectors = dict[str, NDArray[np.float32]]
Masks = dict[str, NDArray[np.bool_]]


@named("item_dropout")
def item_dropout(
    user_items: Any, rate: float = 0.2, *, n_epochs: int, random_state: int = 0
) -> Iterator[sp.csr_array]:
    """Give every epoch another part of the histories: entries are left out at random.

    A network that sees parts learns to fill in the rest, as it must for users with few
    interactions [1]_. Every entry is left out with probability `rate`, independently; a user who
    would lose all keeps one of them, drawn at random. Values stay as they are.

    Parameters
    ----------
    user_items : sparse of shape (n_users, n_items), or Interactions
    rate : float, default=0.2
        In [0, 1).
    n_epochs : int
    random_state : int, default=0
        Epoch `e` depends on it and `e` alone.

    Returns
    -------
    iterator of csr_array of shape (n_users, n_items), float32

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range; at the call, not at the first step.

    References
    ----------
    .. [1] Y. Wu et al., "Collaborative denoising auto-encoders for top-N recommender systems", WSDM
       2016.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.training import item_dropout
    >>> likes = sp.csr_array([[1, 1, 1, 1], [0, 0, 1, 0]])
    >>> [part.nnz for part in item_dropout(likes, 0.5, n_epochs=3)]
    [2, 5, 2]
    """
    csr = as_csr(user_items, "user_items")
    rate, n_epochs, seed = _dropout_arguments(rate, n_epochs, random_state)
    rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    starts = csr.indptr[:-1][np.diff(csr.indptr) > 0]

    def epochs() -> Iterator[sp.csr_array]:
        for number in range(n_epochs):
            draw = np.random.default_rng([seed, number]).random(csr.nnz)
            keep = draw >= rate
            if csr.nnz:  # the largest draw of a row is at a random place: it stays in any case
                largest = np.maximum.reduceat(draw, starts)
                keep |= draw == np.repeat(largest, np.diff(np.append(starts, csr.nnz)))
            indptr = np.concatenate(
                [[0], np.cumsum(np.bincount(rows[keep], minlength=csr.shape[0]))]
            )
            yield sp.csr_array((csr.data[keep], csr.indices[keep], indptr), shape=csr.shape)

    return epochs()


@named("modality_dropout")
def modality_dropout(
    vectors: Mapping[str, ArrayLike],
    rate: float = 0.2,
    *,
    present: Mapping[str, ArrayLike] | None = None,
    n_epochs: int,
    random_state: int = 0,
) -> Iterator[tuple[Vectors, Masks]]:
    """Give every epoch another choice of modalities per item: some are set to zeros.

    A network that always has all modalities leans on the strongest and fails without it [1]_;
    dropping behaviour prepares it for new items [2]_. Every modality that an item has is left out
    with probability `rate`, independently; one of them, drawn at random, always stays.

    Parameters
    ----------
    vectors : mapping modality -> array-like of shape (n_items, dim_m)
        Not changed.
    rate : float, default=0.2
        In [0, 1).
    present : mapping modality -> array-like of bool of shape (n_items,), optional
        Which items have the modality; by default those whose row is not all zeros.
    n_epochs : int
    random_state : int, default=0
        Epoch `e` depends on it and `e` alone.

    Returns
    -------
    iterator of (vectors, present)
        Copies with zeros where a modality is left out, and masks that say where it is there.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, shape or range; at the call, not at the first step.

    References
    ----------
    .. [1] N. Neverova et al., "ModDrop: adaptive multi-modal gesture recognition", IEEE TPAMI
       38(8), 2016.
    .. [2] M. Volkovs, G. Yu, T. Poutanen, "DropoutNet: addressing cold start in recommender
       systems", NIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.training import modality_dropout
    >>> items = {"text": np.ones((4, 2)), "image": np.ones((4, 3))}
    >>> vectors, present = next(modality_dropout(items, 0.5, n_epochs=1))
    >>> bool((present["text"] | present["image"]).all())
    True
    """
    whole = as_modalities(vectors, "vectors")
    rate, n_epochs, seed = _dropout_arguments(rate, n_epochs, random_state)
    if not whole or len({len(x) for x in whole.values()}) != 1:
        raise ValueError(
            f"vectors must have at least one modality, and rows of the same items in all; "
            f"got { ({name: x.shape for name, x in whole.items()}) }"
        )
    n_items = len(next(iter(whole.values())))
    has = np.stack([_present(whole, present, name, n_items) for name in whole], axis=1)

    def epochs() -> Iterator[tuple[Vectors, Masks]]:
        for number in range(n_epochs):
            draw = np.random.default_rng([seed, number]).random(has.shape)
            draw = np.where(has, draw, -1.0)
            keep = has & ((draw >= rate) | (draw == draw.max(axis=1, keepdims=True)))
            yield (
                {
                    n: np.where(keep[:, m, None], x, np.float32(0))
                    for m, (n, x) in enumerate(whole.items())
                },
                {n: keep[:, m].copy() for m, n in enumerate(whole)},
            )

    return epochs()


def _present(
    vectors: Mapping[str, NDArray[np.float32]],
    present: Mapping[str, ArrayLike] | None,
    name: str,
    n_items: int,
) -> NDArray[np.bool_]:
    if present is None or name not in present:
        return np.asarray(vectors[name].any(axis=1))
    mask = np.asarray(present[name])
    if mask.dtype != bool or mask.shape != (n_items,):
        raise ValueError(
            f"present[{name!r}] must be booleans of shape ({n_items},); "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _dropout_arguments(rate: float, n_epochs: int, random_state: int) -> tuple[float, int, int]:
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.floating)):
        raise TypeError(f"rate must be a number; got {type(rate).__name__}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1); got {rate}")
    return float(rate), at_least(1, n_epochs, "n_epochs"), at_least(0, random_state, "random_state")
