"""Batches of interactions, and items that a user did not choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_ids, as_rng, check_ids
from recfuse._named import named
from recfuse.training._checks import at_least

__all__ = ["Batch", "InteractionBatches", "NegativeSampler"]

_ROUNDS = 16  # of rejection, before the items left to a user are listed


class Batch(NamedTuple):
    """One step of training.

    Attributes
    ----------
    users, items : ndarray of shape (n,), int64
    values : ndarray of shape (n,), float32
        Strength of the interactions.
    negatives : ndarray of shape (n, n_negatives), int64
        Items without an interaction with the user of the row.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    values: NDArray[np.float32]
    negatives: NDArray[np.int64]

    def labelled(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return (users, items, labels) for a loss on single items.

        Labels are 1 for what was and 0 for negatives. The positives come first; the arrays have
        n * (1 + n_negatives) rows.
        """
        n, n_negatives = self.negatives.shape
        users = np.concatenate([self.users, np.repeat(self.users, n_negatives)])
        items = np.concatenate([self.items, self.negatives.ravel()])
        labels = np.zeros(len(items), np.float32)
        labels[:n] = 1
        return users, items, labels


class NegativeSampler:
    r"""Draw items that a user has no interaction with.

    An item is drawn with probability proportional to 1, or to :math:`c_i^{power}` with the number
    :math:`c_i` of its users, among those that are not stored in the user's row. Draws are
    independent: an item may come twice.

    Parameters
    ----------
    user_items : sparse of shape (n_users, n_items), or Interactions
        What counts as positive: every stored entry, whatever its value.
    distribution : {'uniform', 'popularity'}, default='uniform'
        By popularity, negatives are harder, and a model is not rewarded for popularity alone [2]_.
    power : float, default=0.75
        Of the popularity; 0.75 is that of word2vec [1]_.

    Raises
    ------
    TypeError
        If `user_items` is not sparse or `power` no number.
    ValueError
        If `distribution` is unknown or `power` is negative or not finite.

    References
    ----------
    .. [1] T. Mikolov et al., "Distributed representations of words and phrases and their
       compositionality", NIPS 2013, section 2.2.
    .. [2] S. Rendle, C. Freudenthaler, "Improving pairwise learning for item recommendation from
       implicit feedback", WSDM 2014.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.training import NegativeSampler
    >>> sampler = NegativeSampler(sp.csr_array([[1, 1, 0, 1], [0, 1, 1, 1]]))
    >>> sampler.sample([0, 1, 0], 2, random_state=0)
    array([[2, 2],
           [0, 0],
           [2, 2]])
    """

    @named("NegativeSampler")
    def __init__(
        self, user_items: Any, distribution: str = "uniform", *, power: float = 0.75
    ) -> None:
        csr = as_csr(user_items, "user_items")
        if distribution not in ("uniform", "popularity"):
            raise ValueError(
                f"distribution must be 'uniform' or 'popularity'; got {distribution!r}"
            )
        if not np.isfinite(power) or power < 0:
            raise ValueError(f"power must be finite and at least 0; got {power}")
        self.shape: tuple[int, int] = csr.shape
        self.distribution = distribution
        counts = np.bincount(csr.indices, minlength=csr.shape[1])
        uniform = distribution == "uniform"
        # An item nobody has is no negative by popularity, also where power is 0.
        self._weights = np.where(uniform | (counts == 0), float(uniform), counts**power)
        self._upto = np.cumsum(self._weights)
        self._indptr, self._indices = csr.indptr.astype(np.int64), csr.indices
        rows = np.repeat(np.arange(csr.shape[0], dtype=np.int64), np.diff(csr.indptr))
        self._positives = rows * csr.shape[1] + csr.indices  # sorted

    @named("sample")
    def sample(
        self,
        user_ids: ArrayLike,
        n: int = 1,
        *,
        random_state: int | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw `n` negatives for every user given.

        Parameters
        ----------
        user_ids : array-like of int, of shape (n_rows,)
            Users may repeat.
        n : int, default=1
        random_state : int, numpy.random.Generator or None

        Returns
        -------
        ndarray of shape (n_rows, n), int64

        Raises
        ------
        TypeError, IndexError
            If ids are no integers or unknown.
        ValueError
            If `n` is below 1, or a user has no negative item that can be drawn.
        """
        n = at_least(1, n, "n")
        rng = as_rng(random_state)
        users = check_ids(as_ids(user_ids, "user_ids"), self.shape[0], "user_ids")
        owners = np.repeat(users.astype(np.int64), n)
        drawn = np.full(len(owners), -1)
        left = np.arange(len(owners))
        if self.shape[1] and self._upto[-1] > 0:
            for _ in range(_ROUNDS):
                if not len(left):
                    break
                drawn[left] = self._any_item(len(left), rng)
                left = left[self._is_positive(owners[left], drawn[left])]
        # Who has nearly everything: rejection would take for ever.
        for user in np.unique(owners[left]):
            mine = left[owners[left] == user]
            drawn[mine] = self._of_user(int(user), len(mine), rng)
        return drawn.reshape(len(users), n)

    def _any_item(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.distribution == "uniform":
            return rng.integers(0, self.shape[1], size)
        place = rng.random(size) * self._upto[-1]
        items: NDArray[np.int64] = np.searchsorted(self._upto, place, side="right").astype(np.int64)
        return items

    def _is_positive(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not len(self._positives):
            return np.zeros(len(users), bool)
        keys = users * self.shape[1] + items
        place = np.searchsorted(self._positives, keys)
        found: NDArray[np.bool_] = (
            self._positives[np.minimum(place, len(self._positives) - 1)] == keys
        )
        return found

    def _of_user(self, user: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        weights = self._weights.copy()
        weights[self._indices[self._indptr[user] : self._indptr[user + 1]]] = 0
        negatives = np.flatnonzero(weights)
        if not len(negatives):
            raise ValueError(
                f"user_items must leave every user an item to draw by {self.distribution}; "
                f"got none for user {user}"
            )
        share = weights[negatives] / weights[negatives].sum()
        items: NDArray[np.int64] = rng.choice(negatives, size, p=share)
        return items


class InteractionBatches:
    """Iterate over interactions in seeded batches with negatives, one epoch per iteration.

    Epoch `e` is a function of `random_state` and `e` alone: the first ``for`` over the object is
    epoch 0, the next is epoch 1; `epoch` gives any of them, to go on where a training stopped.

    Parameters
    ----------
    user_items : sparse of shape (n_users, n_items), or Interactions
        Every stored entry is a positive once per epoch.
    batch_size : int, default=1024
    n_negatives : int, default=1
        Per positive; 0 for none.
    negatives : {'uniform', 'popularity'}, default='uniform'
        As in `NegativeSampler`.
    shuffle : bool, default=True
        Otherwise by user, then item.
    drop_last : bool, default=False
        Leave out a last batch that is smaller than the others.
    random_state : int, default=0

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range, or `user_items` is empty.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.training import InteractionBatches
    >>> batches = InteractionBatches(sp.csr_array([[1, 0, 5], [0, 1, 0]]), batch_size=2)
    >>> len(batches)
    2
    >>> for users, items, values, negatives in batches:
    ...     print(users.shape, negatives.shape)
    (2,) (2, 1)
    (1,) (1, 1)
    """

    @named("InteractionBatches")
    def __init__(
        self,
        user_items: Any,
        batch_size: int = 1024,
        *,
        n_negatives: int = 1,
        negatives: str = "uniform",
        shuffle: bool = True,
        drop_last: bool = False,
        random_state: int = 0,
    ) -> None:
        csr = as_csr(user_items, "user_items")
        if not csr.nnz:
            raise ValueError("user_items must have at least one entry; got none")
        self.batch_size = at_least(1, batch_size, "batch_size")
        self.n_negatives = at_least(0, n_negatives, "n_negatives")
        self.shuffle, self.drop_last = shuffle, drop_last
        self.random_state = at_least(0, random_state, "random_state")
        self._sampler = NegativeSampler(csr, negatives)
        self._users = np.repeat(np.arange(csr.shape[0], dtype=np.int64), np.diff(csr.indptr))
        self._items, self._values = csr.indices.astype(np.int64), csr.data
        self._next_epoch = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(len(self._users), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch."""
        number = self._next_epoch
        self._next_epoch += 1
        return self.epoch(number)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Iterate over one epoch by its number, from 0."""
        # A stream of its own for each: no epoch depends on how many batches another was read for.
        rng = np.random.default_rng([self.random_state, at_least(0, number, "number")])
        n = len(self._users)
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        for step in range(len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            users = self._users[rows]
            negatives = np.empty((len(rows), 0), np.int64)
            if self.n_negatives:
                negatives = self._sampler.sample(users, self.n_negatives, random_state=rng)
            yield Batch(users, self._items[rows], self._values[rows], negatives)
