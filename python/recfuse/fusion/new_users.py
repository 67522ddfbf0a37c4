"""Users whom the fit has not seen: by their own few events, by people like them, by what sells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._inputs import as_csr, as_float, as_matrix
from recfuse._named import named
from recfuse.fusion._arguments import full_weights, list_length
from recfuse.fusion._fitted import FittedRecommender
from recfuse.fusion._patterns import union
from recfuse.fusion.blocks import ContentBlock, FactorBlock, unit_rows
from recfuse.fusion.hybrid import ranked
from recfuse.models._requests import filter_rows
from recfuse.ops import topk

__all__ = ["NewUsers", "similar_profiles"]

Float32 = NDArray[np.float32]


@named("similar_profiles")
def similar_profiles(profiles: ArrayLike, known: ArrayLike, k: int = 50) -> sp.csr_array:
    """Return for every profile the k known users with the largest cosine, where it is above 0.

    Parameters
    ----------
    profiles : array-like of shape (n, dim)
        Encoded age, gender, occupation, place: see `recfuse.features`.
    known : array-like of shape (n_users, dim)
        Profiles of the users of the fit.
    k : int, default=50

    Returns
    -------
    csr_array of shape (n, n_users), float32
        Cosines: what `MultimodalRecommender.recommend_new_users` takes as `like`.

    Raises
    ------
    TypeError, ValueError
        As `recfuse.topk`.
    """
    asked, of = as_matrix(profiles, "profiles"), as_matrix(known, "known")
    if asked.shape[1] != of.shape[1]:
        raise ValueError(
            f"profiles must have {of.shape[1]} columns like known; got {asked.shape[1]}"
        )
    ids, cosines = topk(asked, of, k, metric="cosine")
    rows, columns = np.nonzero((ids >= 0) & (cosines > 0))
    values = (cosines[rows, columns], (rows, ids[rows, columns]))
    return as_csr(sp.csr_array(values, shape=(len(ids), len(of))), "profiles")


class NewUsers(FittedRecommender):
    """The part of `MultimodalRecommender` that speaks to users it does not know."""

    @named("recommend_new_users")
    def recommend_new_users(
        self,
        user_items: Any = None,
        k: int = 10,
        *,
        like: Any = None,
        vectors: Mapping[str, ArrayLike] | None = None,
        own: float = 5.0,
        popularity: float = 0.0,
        exclude_seen: bool = True,
        exclude: Any = None,
        allow: Any = None,
        weights: Mapping[str, float] | None = None,
        contributions: bool = False,
    ) -> tuple[Any, ...]:
        r"""Recommend items to users who were not there at the fit, or are somewhere else now.

        What a user is taken for, in every modality, is

        .. math:: \frac{n}{n + c}\, own + \frac{c}{n + c}\, borrowed

        with n items of their own and c = `own`: factors folded in and the mean of those of the
        users in `like`, each at length 1; their own history and the mean of theirs, each with sum
        1. Without either half it is the other one; without both, the ranking is that of
        "popularity".

        Parameters
        ----------
        user_items : sparse of shape (n, n_items), optional
            Own events, such as `recfuse.sessions.session_rows`; rows may be empty.
        k : int, default=10
        like : sparse of shape (n, n_users), or mapping of str to such, optional
            Known users to borrow from, with weights of at least 0: friends, `similar_profiles`.
            Rows are divided by their sums; of several matrices, the mean of those that know
            somebody is taken.
        vectors : mapping modality -> array-like of shape (n, dim), optional
            What to ask of a modality instead, in the space of `profile`.
        own : float, default=5.0
            The c above: with so many events of their own, half of a user is their own.
        popularity : float, default=0.0
            The c of the same rule for the weights: with m events and known users to go by, all
            weights are multiplied by :math:`m / (m + c)`, and "popularity" gets the rest.
        exclude_seen : bool, default=True
            Leave `user_items` out of the lists.
        exclude, allow, weights, contributions
            As in `recommend`.

        Returns
        -------
        ids, scores, parts
            As `recommend`.

        Raises
        ------
        NotFittedError, TypeError, ValueError, IndexError
            Before `fit`; if nothing says how many users there are, or an argument is wrong.
        """
        check_fitted(self, "models_")
        n_users, n_items = self.user_items_.shape
        asked = {m: as_matrix(v, f"vectors[{m!r}]") for m, v in (vectors or {}).items()}
        sources = {} if like is None else (like if isinstance(like, Mapping) else {"like": like})
        borrowed = {m: as_csr(s, f"like[{m!r}]") for m, s in sources.items()}
        history = None if user_items is None else as_csr(user_items, "user_items")
        lengths = [x.shape[0] for x in (*asked.values(), *borrowed.values())]
        if history is not None:
            lengths.insert(0, history.shape[0])
        if not lengths:
            raise ValueError("user_items must be given, or like, or vectors; got none of them")
        n = lengths[0]
        if history is None:
            history = sp.csr_array((n, n_items), dtype=np.float32)
        filter_rows(history, "user_items", (n, n_items))
        if not np.isfinite(history.data).all():
            raise ValueError("user_items must be finite; got NaN or infinity")
        c, c_popular = _at_least_0(own, "own"), _at_least_0(popularity, "popularity")
        of_others = _mean_of_sources(borrowed, (n, n_users))
        n_own, n_others = np.diff(history.indptr), np.diff(of_others.indptr)
        share = np.where(n_own + c > 0, n_own / np.maximum(n_own + c, 1e-300), 0.0)
        share = np.where(n_others == 0, 1.0, np.where(n_own == 0, 0.0, share))

        rows = _blend(share, history, sp.csr_array(of_others @ self.user_items_))
        for name, block in self._index.blocks.items():
            if isinstance(block, FactorBlock) and name not in asked:
                folded = np.zeros((n, block.users.shape[1]), np.float32)
                if history.nnz and hasattr(block.model, "fold_in"):
                    folded = block.model.fold_in(history)
                lent = of_others @ block.users.astype(np.float64)
                mixed = share[:, None] * unit_rows(folded.astype(np.float64))
                asked[name] = (mixed + (1 - share[:, None]) * unit_rows(lent)).astype(np.float32)
        self._check_asked(asked, n)
        chosen: Mapping[str, Any]
        chosen = self.weights_ if weights is None else full_weights(weights, self.modalities_)
        if c_popular > 0:
            chosen = self._towards_popularity(chosen, n_own + n_others, c_popular)
        excluded = filter_rows(exclude, "exclude", (n, n_items))
        if exclude_seen:
            excluded = union(history, excluded)
        result = ranked(
            self._index.asked_with(asked),
            np.arange(n),
            lambda part: rows[part],
            list_length(k),
            chosen,
            exclude_seen=False,
            exclude=excluded,
            allow=filter_rows(allow, "allow", (n, n_items)) if sp.issparse(allow) else allow,
        )
        return result if contributions else result[:2]

    def _check_asked(self, asked: Mapping[str, Float32], n: int) -> None:
        blocks = self._index.blocks
        for name, matrix in asked.items():
            block = blocks.get(name)
            if isinstance(block, FactorBlock):
                dim = block.users.shape[1]
            elif isinstance(block, ContentBlock):
                dim = block.dim
            else:
                raise ValueError(f"vectors must name modalities with vectors; got {name!r}")
            if matrix.shape != (n, dim):
                raise ValueError(
                    f"vectors[{name!r}] must have shape {(n, dim)}; got {matrix.shape}"
                )

    def _towards_popularity(
        self, weights: Mapping[str, float], known: NDArray[np.intp], c: float
    ) -> dict[str, Any]:
        if "popularity" not in self._index.blocks:
            raise ValueError("popularity must be 0 where the model has no such modality")
        share = known / (known + c)
        total = sum(abs(w) for w in weights.values())
        mixed: dict[str, Any] = {name: share * w for name, w in weights.items()}
        mixed["popularity"] = mixed["popularity"] + (1 - share) * total
        return mixed

    @named("profile")
    def profile(self, user_ids: ArrayLike) -> dict[str, Float32]:
        """Return what users are in every modality that has vectors: query blocks.

        Parameters
        ----------
        user_ids : int or array-like of int

        Returns
        -------
        dict of modality to ndarray of shape (n, dim), float32
            Factors of factorisations; of content, the mean of the items of the history, weighted
            by strength, around the mean of all items and at length 1 (or the vectors given to
            `fit`). `recommend_new_users` takes them as `vectors`.

        Raises
        ------
        NotFittedError, IndexError
            Before `fit`; if a user is unknown.
        """
        check_fitted(self, "models_")
        users = self._known_users(user_ids)
        found = {}
        for name, block in self._index.blocks.items():
            if isinstance(block, FactorBlock):
                found[name] = block.users[users]
            elif isinstance(block, ContentBlock):
                given = block.users
                found[name] = (
                    block.profiles(self.user_items_[users]) if given is None else given[users]
                )
        return found


def _at_least_0(value: Any, name: str) -> float:
    c = as_float(value, name)
    if not 0 <= c < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite; got {value}")
    return c


def _mean_of_sources(sources: Mapping[str, sp.csr_array], shape: tuple[int, int]) -> sp.csr_array:
    """Return rows that sum to 1, or are empty: the mean of the sources that know somebody."""
    total = sp.csr_array(shape, dtype=np.float64)
    for name, matrix in sources.items():
        filter_rows(matrix, f"like[{name!r}]", shape)
        if not np.isfinite(matrix.data).all() or matrix.data.min(initial=0) < 0:
            raise ValueError(f"like[{name!r}] must be finite and at least 0; got other values")
        total = sp.csr_array(total + _of_sum_1(matrix))
    total.eliminate_zeros()
    return _of_sum_1(total)


def _of_sum_1(matrix: sp.csr_array) -> sp.csr_array:
    sums = np.asarray(abs(matrix).sum(axis=1), np.float64).ravel()
    scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    return sp.csr_array(sp.diags_array(scale) @ matrix.astype(np.float64))


def _blend(share: NDArray[np.float64], own: sp.csr_array, lent: sp.csr_array) -> sp.csr_array:
    first = sp.diags_array(share) @ _of_sum_1(own)
    return as_csr(sp.csr_array(first + sp.diags_array(1 - share) @ _of_sum_1(lent)), "user_items")
