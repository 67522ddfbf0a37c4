"""LensKit: scorers for its pipelines, by alternating least squares and by similar items."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from lenskit.data import Dataset, ItemList, QueryInput, RecQuery, Vocabulary
from lenskit.data.types import UIPair
from lenskit.pipeline import Component
from lenskit.training import Trainable, TrainingOptions
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, Field, PositiveFloat, PositiveInt

from recfuse.models import AlternatingLeastSquares
from recfuse.ops import cosine_knn

__all__ = ["ALSConfig", "ALSScorer", "ItemNeighboursConfig", "ItemNeighboursScorer"]

_DENSE = 1 << 22  # similarities of crowded items that are dense at a time

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Numbers = NDArray[np.int64]


class ALSConfig(BaseModel, extra="forbid"):
    """Configuration of `ALSScorer`; names and defaults are those of LensKit's ALS scorers."""

    embedding_size: PositiveInt = Field(
        default=50, validation_alias=AliasChoices("embedding_size", "features")
    )
    epochs: PositiveInt = 10
    regularization: PositiveFloat | UIPair[PositiveFloat] = 0.1
    "Multiplied by the number of ratings with explicit feedback."
    feedback: Literal["implicit", "explicit"] = "implicit"
    weight: PositiveFloat = 40.0
    "Implicit feedback: confidence of an interaction, above the 1 of no interaction."
    use_ratings: bool = False
    "Implicit feedback: multiply the confidence by the rating."
    user_embeddings: bool | Literal["prefer"] = True
    "Keep what training learned of users; 'prefer' takes it where a query has a history, too."
    solver: Literal["auto", "cholesky", "cg", "block"] = "cholesky"
    "As in `recfuse.AlternatingLeastSquares`; 'cholesky' solves exactly, as LensKit does."
    device: str = "auto"
    num_threads: int = 0


class _Scorer(Component[ItemList], Trainable):
    """What the scorers share: whose history is asked, and scores of items that are known."""

    users: Vocabulary | None
    items: Vocabulary

    def _known(self, items: ItemList) -> tuple[Numbers, NDArray[np.bool_]]:
        """Return numbers of the items that training knew, and which of the list they are."""
        numbers = items.numbers(vocabulary=self.items, missing="negative")
        known = numbers >= 0
        return numbers[known].astype(np.int64), known

    def _history(self, items: ItemList, with_ratings: bool) -> tuple[Numbers, Float32]:
        """Return the known items of a history, each once, and their ratings or ones."""
        numbers, known = self._known(items)
        if not with_ratings:
            values = np.ones(len(numbers), np.float32)
        else:
            ratings = items.field("rating")
            if ratings is None:
                raise ValueError(
                    f"{type(self).__name__}: query must have a field 'rating' in its history, as "
                    "feedback='explicit' and use_ratings want; got none"
                )
            values = np.asarray(ratings, np.float32)[known]
            numbers, values = numbers[np.isfinite(values)], values[np.isfinite(values)]
        numbers, first = np.unique(numbers, return_index=True)
        return numbers, values[first]


class ALSScorer(_Scorer):
    """Score items by factors of alternating least squares, which recfuse's kernels learn.

    With ``feedback='implicit'`` the objective is that of LensKit's `ImplicitMFScorer`; with
    ``'explicit'`` that of `BiasedMFScorer`, except that biases are learned with the factors instead
    of before them. A query with a history is answered by factors that are solved for that history,
    as there; a user without either, and an item that training did not know, score NaN.

    Parameters
    ----------
    config : ALSConfig, optional
        Or its fields as keywords.

    Attributes
    ----------
    model : recfuse.AlternatingLeastSquares
        After `train`.
    users, items : lenskit.data.Vocabulary

    Examples
    --------
    >>> from lenskit.pipeline import topn_pipeline
    >>> from recfuse.adapters.lenskit import ALSScorer
    >>> pipe = topn_pipeline(ALSScorer(features=16, feedback="implicit"), n=10)
    """

    config: ALSConfig
    model: AlternatingLeastSquares

    def train(self, data: Dataset, options: TrainingOptions | None = None) -> None:
        """Learn the factors of a data set, from starting values of ``options.rng``.

        Parameters
        ----------
        data : lenskit.data.Dataset
            With ratings, where ``feedback='explicit'`` or `use_ratings`.
        options : lenskit.training.TrainingOptions, optional
            A device there is taken where the configuration says 'auto'.

        Raises
        ------
        DeviceError
            If a GPU is asked for and cannot be used.
        """
        options = TrainingOptions() if options is None else options
        if hasattr(self, "model") and not options.retrain:
            return
        config = self.config
        explicit = config.feedback == "explicit"
        penalty = config.regularization
        if not isinstance(penalty, float):
            # |x|^2 and |y|^2 can be exchanged for one another without a change of any score.
            penalty = float(np.sqrt(penalty.user * penalty.item))
        model = AlternatingLeastSquares(
            config.embedding_size,
            regularization=penalty,
            alpha=config.weight,
            iterations=config.epochs,
            objective=config.feedback,
            biases=explicit,
            frequency_scaling=1.0 if explicit else 0.0,
            solver=config.solver,
            random_state=options.random_generator(),
            device=_device(config.device, options),
            num_threads=config.num_threads,
        )
        model.fit(_matrix(data, self._wants_ratings))
        model.random_state = None  # a generator that has been used
        self.users, self.items, self.model = data.users, data.items, model
        if not config.user_embeddings:
            self.users = None
            model.user_factors_, model.user_biases_ = (
                model.user_factors_[:0].copy(),
                model.user_biases_[:0].copy(),
            )

    @property
    def _wants_ratings(self) -> bool:
        return self.config.feedback == "explicit" or self.config.use_ratings

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """Return the items with scores: NaN where the user or the item is unknown."""
        query = RecQuery.create(query)
        user = self._user(query)
        if user is None:
            return ItemList(items, scores=np.nan)
        vector, bias = user
        numbers, known = self._known(items)
        model, scores = self.model, np.full(len(items), np.nan, np.float32)
        if 5 * len(numbers) < 4 * len(model.item_factors_):
            products = model.item_factors_[numbers] @ vector
        else:
            products = (model.item_factors_ @ vector)[numbers]
        if model.biases:
            products = products + (model.item_biases_[numbers] + (model.global_mean_ + bias))
        scores[known] = products
        return ItemList(items, scores=scores)

    def _user(self, query: RecQuery) -> tuple[Float32, float] | None:
        """Return factors and bias of who asks, or None."""
        number = None
        if query.user_id is not None and self.users is not None:
            number = self.users.number(query.user_id, missing=None)
        history = query.query_items
        trained_first = number is not None and self.config.user_embeddings == "prefer"
        if history is not None and len(history) and not trained_first:
            numbers, values = self._history(history, self._wants_ratings)
            indptr = np.array([0, len(numbers)])
            row = sp.csr_array((values, numbers, indptr), shape=(1, len(self.items)))
            factors, biases = self.model._fold_in(row)
            return factors[0], float(biases[0])
        if number is None:
            return None
        return self.model.user_factors_[number], float(self.model.user_biases_[number])


class ItemNeighboursConfig(BaseModel, extra="forbid"):
    """Configuration of `ItemNeighboursScorer`; names and defaults are those of `ItemKNNConfig`."""

    max_nbrs: PositiveInt = Field(20, validation_alias=AliasChoices("max_nbrs", "nnbrs", "k"))
    "Items of a history that score an item, the most similar ones."
    min_nbrs: PositiveInt = 1
    min_sim: PositiveFloat = 1.0e-6
    save_nbrs: PositiveInt | None = None
    "Neighbours kept per item. None keeps all, at some 12 bytes per pair of items with a user."
    feedback: Literal["explicit", "implicit"] = "explicit"
    device: str = "auto"
    num_threads: int = 0


class ItemNeighboursScorer(_Scorer):
    """Score items by their cosine with those of a history: `ItemKNNScorer` over `cosine_knn`.

    With explicit feedback the score is a rating: the item's mean, and the mean of how ratings of
    its neighbours deviate from theirs, weighted by similarity. With implicit feedback it is the sum
    of similarities. Scores are those of LensKit's scorer up to rounding, and are NaN where fewer
    than `min_nbrs` neighbours are in the history, which a query must have.

    Parameters
    ----------
    config : ItemNeighboursConfig, optional
        Or its fields as keywords.

    Attributes
    ----------
    similarity : csr_array of shape (n_items, n_items), float32
        After `train`: the neighbours of every item.
    item_means : ndarray of shape (n_items,), float32, or None
    items : lenskit.data.Vocabulary

    Examples
    --------
    >>> from lenskit.pipeline import predict_pipeline
    >>> from recfuse.adapters.lenskit import ItemNeighboursScorer
    >>> pipe = predict_pipeline(ItemNeighboursScorer(max_nbrs=20))
    """

    config: ItemNeighboursConfig
    similarity: sp.csr_array
    item_means: Float32 | None

    def train(self, data: Dataset, options: TrainingOptions | None = None) -> None:
        """Find the neighbours of every item; parameters as `ALSScorer.train`."""
        options = TrainingOptions() if options is None else options
        if hasattr(self, "similarity") and not options.retrain:
            return
        config = self.config
        explicit = config.feedback == "explicit"
        item_users = _matrix(data, explicit).T.tocsr()
        means = None
        if explicit:
            counts = np.diff(item_users.indptr)
            sums = np.asarray(item_users.sum(axis=1, dtype=np.float64)).ravel()
            means = (sums / np.maximum(counts, 1)).astype(np.float32)
            item_users.data -= np.repeat(means, counts)
        if config.save_nbrs is None:
            similarity = _all_cosines(item_users)
        else:
            similarity = cosine_knn(
                item_users,
                config.save_nbrs,
                device=_device(config.device, options),
                num_threads=config.num_threads,
            )
        near = similarity.data >= config.min_sim
        kept = np.concatenate([[0], np.cumsum(near)])[similarity.indptr]
        self.similarity = sp.csr_array(
            (similarity.data[near], similarity.indices[near], kept), shape=similarity.shape
        )
        self.items, self.item_means = data.items, means

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """Return the items with scores, and as `nbr_counts` of how many neighbours these are."""
        history = RecQuery.create(query).query_items
        if history is None or len(history) == 0:
            return ItemList(items, scores=np.nan)
        liked, values = self._history(history, self.item_means is not None)
        if self.item_means is not None:
            values = values - self.item_means[liked]
        numbers, known = self._known(items)
        near, means = self.similarity[liked], self.item_means
        if 2 * len(numbers) < near.shape[1]:  # few are asked: the rest is left out
            asked, numbers = np.unique(numbers, return_inverse=True)
            near, means = near[:, asked], None if means is None else means[asked]
        sums, weights, counts = self._sums(near, values)
        with np.errstate(invalid="ignore"):  # 0 / 0 of no neighbour, which is NaN
            found = weights if means is None else sums / weights + means
        found[counts < self.config.min_nbrs] = np.nan
        scores, used = np.full(len(items), np.nan, np.float32), np.zeros(len(items), np.int32)
        scores[known], used[known] = found[numbers], counts[numbers]
        return ItemList(items, scores=scores, nbr_counts=used)

    def _sums(self, near: sp.csr_array, values: Float32) -> tuple[Float64, Float64, Numbers]:
        """Return, per column, weighted sums, weights and numbers of its nearest rows."""
        counts = np.bincount(near.indices, minlength=near.shape[1])
        weights, sums = near.sum(axis=0, dtype=np.float64), near.T @ values.astype(np.float64)
        most = self.config.max_nbrs
        crowded = np.flatnonzero(counts > most)
        step = max(1, _DENSE // max(1, near.shape[0]))
        for first in range(0, len(crowded), step):
            some = crowded[first : first + step]
            similar = np.ascontiguousarray(near[:, some].toarray().T)
            least = np.partition(similar, -most, axis=1)[:, -most, None]
            kept = np.where(similar >= least, similar, 0)
            ties = np.flatnonzero((kept > 0).sum(axis=1) > most)
            others = np.argsort(-kept[ties], axis=1, kind="stable")[:, most:]
            kept[ties[:, None], others] = 0
            weights[some] = kept.sum(axis=1, dtype=np.float64)
            sums[some] = kept @ values.astype(np.float64)
        return sums, weights, np.minimum(counts, most)


def _all_cosines(rows: sp.csr_array) -> sp.csr_array:
    """Return the cosines of all pairs of rows that share a column, but of none with itself.

    `cosine_knn` would sort them all, for nothing.
    """
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1, dtype=np.float64)).ravel())
    unit = rows.astype(np.float64)
    unit.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(rows.indptr))
    cosines = sp.csr_array(unit @ unit.T).astype(np.float32)
    cosines.data[cosines.indices == np.repeat(np.arange(len(lengths)), np.diff(cosines.indptr))] = 0
    return cosines


def _matrix(data: Dataset, with_ratings: bool) -> sp.csr_array:
    """Return interactions as users x items: ratings, or ones."""
    matrix = (
        data.interactions()
        .matrix()
        .scipy(attribute="rating" if with_ratings else None, layout="csr")
    )
    return sp.csr_array(matrix, dtype=np.float32)


def _device(configured: str, options: TrainingOptions) -> str:
    return options.device or "auto" if configured == "auto" else configured
