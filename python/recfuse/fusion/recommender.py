"""The multimodal recommender: behaviour and content, with weights chosen on held-out events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from recfuse._base import check_fitted
from recfuse._inputs import as_csr, as_float, as_ids, as_rng, check_ids, is_sparse
from recfuse._named import named
from recfuse._retrieval import Retrieval
from recfuse.fusion._arguments import (
    behaviour_models,
    content_blocks,
    full_weights,
    later_events,
    list_length,
    segment_labels,
    takes_y,
)
from recfuse.fusion._held_out import cached_scores, hold_out
from recfuse.fusion._retrieval import retrieval_of
from recfuse.fusion.blocks import (
    Block,
    ContentBlock,
    FactorBlock,
    NeighbourBlock,
    PopularityBlock,
    UserNeighbourBlock,
)
from recfuse.fusion.catalogue import Catalogue
from recfuse.fusion.explains import Explains
from recfuse.fusion.fitting import fit_cached
from recfuse.fusion.hybrid import HybridIndex, ranked
from recfuse.fusion.new_items import NewItems
from recfuse.fusion.new_users import NewUsers
from recfuse.models import AlternatingLeastSquares, ItemNeighbours
from recfuse.models._requests import filter_rows, left_out

__all__ = ["MultimodalRecommender"]

POPULARITY = "popularity"
_FOLDS = 3
_LEAST_SEGMENT = 50


class MultimodalRecommender(NewUsers, NewItems, Catalogue, Explains):
    r"""Fuse what people did with what items are.

    Each modality scores every item for a user: a factorisation by the inner product of its
    factors, neighbours by the similarities to the history, content (text, image, ...) by the
    cosine between the item and the mean of the user's history, popularity by the logarithm of the
    count. A user's scores of one modality are standardised over the catalogue, so the weights
    compare like with like:

    .. math:: score(u, i) = f_i \sum_{m \in P_i} w_m \frac{s_m(u, i) - \mu_m(u)}{\sigma_m(u)},
              \quad f_i = \frac{\sum_m w_m}{\sum_{m \in P_i} w_m}

    over the modalities :math:`P_i` that the item has. An item nobody has touched yet lacks those
    of behaviour and is judged by its content, on the same scale.

    Parameters
    ----------
    behaviour : mapping of str to estimator, optional
        Behaviour models by the names of their modalities: ones with factors
        (`AlternatingLeastSquares`) or with neighbours (`ItemNeighbours`, `UserNeighbours`, which
        says nothing of new users). By default `AlternatingLeastSquares` and `ItemNeighbours`, as
        "als" and "neighbours". They are fitted in place.
    weights : 'fit' or mapping of str to float, default='fit'
        'fit' chooses them on held-out events.
    metric : {'ndcg', 'recall'}, default='ndcg'
        By what 'fit' chooses, at `k`.
    k : int, default=20
        Length of the lists that 'fit' looks at.
    popularity : bool, default=True
        Add the modality "popularity". A user about whom nothing is known gets its ranking.
    cold_items : float, optional
        Give items the factors that their content predicts (`FactorMap`) until they have earned
        their own: with n interactions an item gets :math:`n / (n + c)` of what it learned and
        :math:`c / (n + c)` of the prediction, c being this number. None leaves items without
        interactions out of the modalities with factors.
    random_state : int, Generator or None, default=0
        Of the hold-out and of the search for weights.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
    num_threads : int, default=0

    Attributes
    ----------
    modalities_ : list of str
        Behaviour first, then content, then popularity.
    weights_ : dict of str to float
        Fitted ones are not negative and sum to 1.
    segment_weights_ : dict of str to dict of str to float
        Of the segments of `fit` that do better with weights of their own.
    user_weights_ : dict of str to ndarray of shape (n_users,), or None
        The weights of every user, if a segment has its own.
    validation_ndcg_ : float or None
        NDCG@`k` of the fitted weights on the held-out events.
    validation_ : dict or None
        The metric on the held-out events, "value"; "cross_validated", by weights fitted on other
        users; of "equal" weights; and of every modality "alone".
    user_items_ : csr_array of shape (n_users, n_items)
        The history, held-out events included: what lists leave out.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, recfuse
    >>> rng = np.random.default_rng(0)
    >>> likes = sp.csr_array((rng.random((30, 20)) < 0.3).astype(np.float32))
    >>> model = recfuse.MultimodalRecommender(weights={"als": 0.5, "text": 0.5})
    >>> ids, scores = model.fit(likes, {"text": rng.random((20, 4))}).recommend([0, 1], k=3)
    >>> ids.shape
    (2, 3)
    """

    def __init__(
        self,
        behaviour: Mapping[str, Any] | None = None,
        *,
        weights: str | Mapping[str, float] = "fit",
        metric: str = "ndcg",
        k: int = 20,
        popularity: bool = True,
        cold_items: float | None = None,
        random_state: int | np.random.Generator | None = 0,
        device: str = "auto",
        num_threads: int = 0,
    ) -> None:
        self.behaviour = behaviour
        self.weights = weights
        self.metric = metric
        self.k = k
        self.popularity = popularity
        self.cold_items = cold_items
        self.random_state = random_state
        self.device = device
        self.num_threads = num_threads

    @takes_y
    @named("fit")
    def fit(
        self,
        user_items: Any,
        items: Mapping[str, ArrayLike] | None = None,
        users: Mapping[str, ArrayLike] | None = None,
        *,
        present: Mapping[str, ArrayLike] | None = None,
        validation: Any = None,
        segments: ArrayLike | None = None,
        show_progress: bool = False,
    ) -> MultimodalRecommender:
        """Fit the behaviour models and the weights.

        Parameters
        ----------
        user_items : sparse of shape (n_users, n_items), or Interactions
            Strength of every interaction.
        items : mapping modality -> array-like of shape (n_items, dim_m), optional
            Content vectors. A row of zeros or with a NaN counts as missing.
        users : mapping modality -> array-like of shape (n_users, dim_m), optional
            Vectors of users in the space of the same modality of `items`, instead of the mean of
            their history.
        present : mapping modality -> array-like of bool of shape (n_items,), optional
            Which items have the modality, where zeros do not say it.
        validation : like `user_items`, optional
            Held-out events, later ones at best, on which ``weights='fit'`` chooses. Without it a
            fifth of the events is held out at random. Afterwards the behaviour models are fitted
            again on everything.
        segments : array-like of shape (n_users,), optional
            A label per user. A segment of at least 50 held-out users gets weights of its own where
            they do better in its held-out folds.
        show_progress : bool, default=False

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a shape, a name or a type is wrong.
        """
        history = as_csr(user_items, "user_items")
        later = None if validation is None else later_events(validation, user_items, history.shape)
        k = list_length(self.k)
        if self.cold_items is not None and not as_float(self.cold_items, "cold_items") > 0:
            raise ValueError(f"cold_items must be above 0; got {self.cold_items}")
        items, users, present = ({} if x is None else x for x in (items, users, present))
        content = content_blocks(items, users, present, history.shape)
        models = self._behaviour_models()
        names = [*models, *content, *([POPULARITY] if self.popularity else [])]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"behaviour and items must name different modalities; got {names}")
        chosen = None if isinstance(self.weights, str) else full_weights(self.weights, names)
        if chosen is None and self.weights != "fit":
            raise ValueError(f"weights must be 'fit' or a mapping; got {self.weights!r}")
        if self.metric not in ("ndcg", "recall"):
            raise ValueError(f"metric must be 'ndcg' or 'recall'; got {self.metric!r}")
        labels = segment_labels(segments, history.shape[0], fitted=chosen is None)

        fitted = None
        if chosen is None:
            rng = as_rng(self.random_state)
            if later is None:
                history, later = hold_out(history, rng)
            blocks = self._blocks(models, content, history, show_progress)
            cached = cached_scores(self._hybrid(blocks), history, later, rng)
            fitted = fit_cached(
                cached,
                names,
                metric=self.metric,
                k=k,
                folds=_FOLDS,
                segments=None if labels is None else labels[cached.users],
                min_segment=_LEAST_SEGMENT,
                rng=rng,
            )
            chosen = fitted.weights
        if later is not None:
            history = as_csr(history + later, "user_items")
        # Set together, so that an interrupted fit leaves the model as it was.
        blocks = self._blocks(models, content, history, show_progress)
        self.modalities_, self.weights_ = names, chosen
        own = {} if fitted is None else fitted.segments
        self.segment_weights_ = {str(label): weights for label, weights in own.items()}
        self.user_weights_ = None
        if fitted is not None and labels is not None and own:
            self.user_weights_ = fitted.per_query(labels)
        self.validation_ = None if fitted is None else fitted.summary()
        self.validation_ndcg_ = fitted.value if fitted and self.metric == "ndcg" else None
        self.models_, self.content_, self.user_items_ = models, content, history
        self._built_index, self._blocks_before = self._hybrid(blocks), None
        return self

    @property
    def _index(self) -> HybridIndex:
        """The index over the fitted blocks; a loaded model makes it at first use."""
        if self._built_index is None:
            blocks = self._fitted_blocks(
                self.models_, self.content_, self.user_items_, self._blocks_before
            )
            self._built_index, self._blocks_before = self._hybrid(blocks), None
        return self._built_index

    def _behaviour_models(self) -> dict[str, Any]:
        if self.behaviour is not None:
            return behaviour_models(self.behaviour)
        shared: dict[str, Any] = {"device": self.device, "num_threads": self.num_threads}
        return {
            "als": AlternatingLeastSquares(random_state=0, **shared),
            "neighbours": ItemNeighbours(**shared),
        }

    def _blocks(
        self,
        models: Mapping[str, Any],
        content: Mapping[str, ContentBlock],
        history: sp.csr_array,
        show_progress: bool,
    ) -> dict[str, Block]:
        for model in models.values():
            model.fit(history, show_progress=show_progress)
        return self._fitted_blocks(models, content, history)

    def _fitted_blocks(
        self,
        models: Mapping[str, Any],
        content: Mapping[str, ContentBlock],
        history: sp.csr_array,
        before: Mapping[str, Block] | None = None,
    ) -> dict[str, Block]:
        counts = np.bincount(history.indices, minlength=history.shape[1])
        blocks: dict[str, Block] = {}
        for name, model in models.items():
            if hasattr(model, "item_factors_"):
                blocks[name] = FactorBlock(
                    model, counts, content, self.cold_items, (before or {}).get(name)
                )
            elif hasattr(model, "score_users"):
                blocks[name] = UserNeighbourBlock(model, counts > 0)
            elif hasattr(model, "score"):
                blocks[name] = NeighbourBlock(model, counts > 0)
            else:
                raise TypeError(
                    f"behaviour[{name!r}] must have item factors or neighbours, like "
                    "AlternatingLeastSquares, ItemNeighbours or UserNeighbours; "
                    f"got {type(model).__name__}"
                )
        blocks.update(content)
        if self.popularity:
            blocks[POPULARITY] = PopularityBlock(counts)
        return blocks

    def _hybrid(self, blocks: Mapping[str, Block]) -> HybridIndex:
        return HybridIndex(
            blocks,
            fallback=POPULARITY if self.popularity else None,
            device=self.device,
            num_threads=self.num_threads,
        )

    def _retrieval(self) -> Retrieval:
        check_fitted(self, "models_")
        weights = self.weights_ if self.user_weights_ is None else self.user_weights_
        return retrieval_of(
            self._index,
            self.user_items_,
            {name: weights[name] for name in self.modalities_},
            {"device": self.device, "num_threads": self.num_threads},
        )

    @named("recommend")
    def recommend(
        self,
        user_ids: ArrayLike,
        k: int = 10,
        *,
        user_items: Any = None,
        exclude_seen: bool = True,
        exclude: Any = None,
        allow: Any = None,
        weights: Mapping[str, ArrayLike] | None = None,
        contributions: bool = False,
        diversity: float = 0.0,
        depth: int = 100,
    ) -> tuple[Any, ...]:
        """Recommend items to known users.

        Parameters
        ----------
        user_ids : int or array-like of int
        k : int, default=10
        user_items : sparse of shape (n, n_items), optional
            Left out of the lists, one row per queried user, as in every model.
        exclude_seen : bool, default=True
            Leave out what the user's history of the fit has.
        exclude, allow
            Further filters, one row per queried user, as in `recfuse.topk`.
        weights : mapping of str to float or array-like of shape (n,), optional
            Instead of the fitted ones, for all or one per queried user; modalities that are not
            named get 0.
        contributions : bool, default=False
        diversity : float, default=0.0
            In [0, 1]: above 0 the k are chosen among the `depth` best by `recfuse.rerank.mmr`, at
            ``trade_off=1 - diversity``, unlike each other by their content (by factors where there
            is no content). Scores need not descend then.
        depth : int, default=100

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n, k), float32
            -inf for padding.
        parts : ndarray of shape (n, k, n_modalities), float64
            With `contributions` only: what each of `modalities_` adds to the score.

        Raises
        ------
        NotFittedError
            Before `fit`.
        IndexError
            If a user is unknown.
        ValueError
            If a weight names no modality or a filter has the wrong shape.
        """
        check_fitted(self, "models_")
        users = self._known_users(user_ids)
        exclude = left_out(user_items, exclude, (len(users), self.user_items_.shape[1]))
        if is_sparse(allow):
            allow = filter_rows(allow, "allow", (len(users), self.user_items_.shape[1]))
        elif allow is not None:
            allow = check_ids(as_ids(allow, "allow"), self.user_items_.shape[1], "allow")
        chosen = self._weights_of(users)
        if weights is not None:
            chosen = full_weights(weights, self.modalities_, len(users))
        length = list_length(k)
        if diversity != 0:
            length = max(length, list_length(depth, "depth"))
        joined = ranked(
            self._index,
            users,
            lambda rows: self.user_items_[users[rows]],
            length,
            chosen,
            exclude_seen=exclude_seen,
            exclude=exclude,
            allow=allow,
        )
        if diversity != 0:
            joined = self._spread(joined, k, diversity)
        return joined if contributions else joined[:2]
