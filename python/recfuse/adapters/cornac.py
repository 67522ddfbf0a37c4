"""cornac: models for its experiments, of behaviour and of several modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from cornac.data import Dataset
from cornac.exception import ScoreException
from cornac.models.recommender import MEASURE_DOT, ANNMixin, Recommender
from numpy.typing import NDArray

from recfuse import models
from recfuse.features._lsa import components
from recfuse.fusion import MultimodalRecommender

__all__ = ["ALS", "ItemNeighbours", "Multimodal"]

Float32 = NDArray[np.float32]
_E = TypeVar("_E")


class _Model(Recommender):
    """What the models share: `fit` learns if `trainable`, `score` refuses what is unknown.

    Parameters of the estimator within are attributes of the same name, as cornac's `clone` wants.
    """

    def __init__(self, name: str, trainable: bool, verbose: bool, **parameters: Any) -> None:
        super().__init__(name=name, trainable=trainable, verbose=verbose)
        self._parameters = tuple(parameters)
        self.__dict__.update(parameters)

    def _unfitted(self, estimator: type[_E]) -> _E:
        return estimator(**{name: getattr(self, name) for name in self._parameters})

    def fit(self, train_set: Dataset, val_set: Dataset | None = None) -> _Model:
        """Learn from a training set.

        Parameters
        ----------
        train_set : cornac.data.Dataset
        val_set : cornac.data.Dataset, optional
            Not looked at: whatever is chosen by held-out events is chosen in `train_set`.

        Returns
        -------
        self
        """
        super().fit(train_set, val_set)
        if self.trainable:
            self._learn(train_set)
        return self

    def score(self, user_idx: int, item_idx: int | None = None) -> Any:
        """Score all items for a user, or one.

        Parameters
        ----------
        user_idx : int
        item_idx : int, optional

        Returns
        -------
        ndarray of shape (n_items,), float32, or float

        Raises
        ------
        ScoreException
            If user or item is unknown; cornac then takes `default_score`.
        """
        known_users, known_items = self._size()
        for name, index, n in (("user", user_idx, known_users), ("item", item_idx, known_items)):
            if index is not None and not 0 <= index < n:
                raise ScoreException(
                    f"{self.name}: {name}_idx must be known, below {n}; got {index}"
                )
        scores = self._scores(user_idx)
        return scores if item_idx is None else float(scores[item_idx])

    def _size(self) -> tuple[int, int]:
        return self.num_users, self.num_items

    def _learn(self, train_set: Dataset) -> None:
        raise NotImplementedError

    def _scores(self, user: int) -> Float32:
        raise NotImplementedError


class ALS(_Model, ANNMixin):
    """`recfuse.AlternatingLeastSquares` in cornac: implicit feedback, or ratings.

    Parameters
    ----------
    name : str, default='recfuse ALS'
    factors, regularization, alpha, iterations, objective, solver, biases, frequency_scaling
        As in `recfuse.AlternatingLeastSquares`, with its defaults.
    random_state, device, num_threads
        As there.
    trainable, verbose : bool
        As in every model of cornac; `verbose` shows a bar where tqdm is installed.

    Attributes
    ----------
    model : recfuse.AlternatingLeastSquares
        After `fit`.

    Examples
    --------
    >>> from cornac.data import Dataset
    >>> from recfuse.adapters.cornac import ALS
    >>> data = Dataset.from_uir([("ann", "tea", 1.0), ("ann", "jam", 1.0), ("bob", "tea", 1.0)])
    >>> model = ALS(factors=2, random_state=0).fit(data)
    >>> model.recommend("bob", k=1, remove_seen=True, train_set=data)
    ['jam']
    """

    def __init__(
        self,
        name: str = "recfuse ALS",
        factors: int = 64,
        regularization: float = 0.01,
        alpha: float = 1.0,
        iterations: int = 15,
        objective: str = "implicit",
        solver: str = "auto",
        biases: bool = False,
        frequency_scaling: float = 0.0,
        random_state: int | None = None,
        device: str = "auto",
        num_threads: int = 0,
        trainable: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            name,
            trainable,
            verbose,
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            iterations=iterations,
            objective=objective,
            solver=solver,
            biases=biases,
            frequency_scaling=frequency_scaling,
            random_state=random_state,
            device=device,
            num_threads=num_threads,
        )

    def _learn(self, train_set: Dataset) -> None:
        model = self._unfitted(models.AlternatingLeastSquares)
        self.model = model.fit(train_set.csr_matrix, show_progress=self.verbose)

    def _scores(self, user: int) -> Float32:
        model = self.model
        scores: Float32 = model.item_factors_ @ model.user_factors_[user]
        if model.biases:
            scores = scores + model.item_biases_ + (model.global_mean_ + model.user_biases_[user])
        return scores

    def get_vector_measure(self) -> Any:
        """Return cornac's name of the inner product, for its approximate indexes."""
        return MEASURE_DOT

    def get_user_vectors(self) -> Float32:
        """Return vectors whose products with those of items are the scores."""
        model = self.model
        return model._user_vectors(model.user_factors_, model.user_biases_)["factors"]

    def get_item_vectors(self) -> Float32:
        """Return the vectors of items; see `get_user_vectors`."""
        return self.model._item_vectors()


class ItemNeighbours(_Model):
    """`recfuse.ItemNeighbours` in cornac: the cosine with the items of a user's history.

    Parameters
    ----------
    name : str, default='recfuse item neighbours'
    k, weighting, norm, shrinkage, min_support, asymmetry, device, num_threads
        As in `recfuse.ItemNeighbours`, with its defaults.
    trainable, verbose : bool

    Attributes
    ----------
    model : recfuse.ItemNeighbours
        After `fit`.
    """

    def __init__(
        self,
        name: str = "recfuse item neighbours",
        k: int = 20,
        weighting: str | None = None,
        norm: str = "full",
        shrinkage: float = 0.0,
        min_support: int = 1,
        asymmetry: float = 0.5,
        device: str = "auto",
        num_threads: int = 0,
        trainable: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            name,
            trainable,
            verbose,
            k=k,
            weighting=weighting,
            norm=norm,
            shrinkage=shrinkage,
            min_support=min_support,
            asymmetry=asymmetry,
            device=device,
            num_threads=num_threads,
        )

    def _learn(self, train_set: Dataset) -> None:
        self.model = self._unfitted(models.ItemNeighbours).fit(train_set.csr_matrix)

    def _scores(self, user: int) -> Float32:
        found = self.model.score(self.model.user_items_[[user]])
        scores = np.zeros(found.shape[1], np.float32)
        scores[found.indices] = found.data
        return scores


class Multimodal(_Model):
    """`recfuse.MultimodalRecommender` in cornac: behaviour fused with the modalities of items.

    The features of ``item_text``, ``item_image`` and ``item_feature`` of the training set become
    the modalities "text", "image" and "feature"; a text without features its TF-IDF matrix in
    `text_dim` dimensions. An item that a modality has nothing for lacks it, and its score rests on
    the others. Items that nobody has touched, but that the evaluation knows, are ranked by content;
    users about whom nothing is known get the ranking by popularity.

    Parameters
    ----------
    name : str, default='recfuse multimodal'
    behaviour, weights, metric, popularity, cold_items, random_state, device, num_threads
        As in `recfuse.MultimodalRecommender`, with its defaults.
    k : int, default=20
        Length of the lists for which weights are chosen.
    text_dim : int, default=128
        Of a text without features.
    trainable, verbose : bool

    Attributes
    ----------
    model : recfuse.MultimodalRecommender
        After `fit`; its `weights_` say what a modality is worth.
    """

    def __init__(
        self,
        name: str = "recfuse multimodal",
        behaviour: Mapping[str, Any] | None = None,
        weights: str | Mapping[str, float] = "fit",
        metric: str = "ndcg",
        k: int = 20,
        popularity: bool = True,
        cold_items: float | None = None,
        text_dim: int = 128,
        random_state: int = 0,
        device: str = "auto",
        num_threads: int = 0,
        trainable: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            name,
            trainable,
            verbose,
            behaviour=behaviour,
            weights=weights,
            metric=metric,
            k=k,
            popularity=popularity,
            cold_items=cold_items,
            random_state=random_state,
            device=device,
            num_threads=num_threads,
        )
        self.text_dim = text_dim

    def _size(self) -> tuple[int, int]:
        shape: tuple[int, int] = self.model.user_items_.shape
        return shape

    def _learn(self, train_set: Dataset) -> None:
        history = sp.csr_matrix(train_set.csr_matrix, copy=True)
        history.resize(self.total_users, self.total_items)
        self.model = self._unfitted(MultimodalRecommender).fit(
            history, self._content(train_set), show_progress=self.verbose
        )

    def _content(self, train_set: Dataset) -> dict[str, Float32]:
        """Return vectors of all items by modality; rows of zeros are missing ones."""
        content = {}
        for name in ("text", "image", "feature"):
            # A data set that no evaluation has made has no such attributes.
            modality = getattr(train_set, f"item_{name}", None)
            if modality is None:
                continue
            features = modality.features
            if features is None and getattr(modality, "corpus", None) is not None:
                features = self._words(modality.tfidf_matrix)
            if features is not None:
                content[name] = self._rows(features, modality.ids)
        return content

    def _words(self, tfidf: Any) -> Float32:
        matrix = sp.csr_array(tfidf, dtype=np.float32)
        dim = min(self.text_dim, min(matrix.shape) - 1)
        vectors: Float32 = (matrix @ components(matrix, dim, "Multimodal")).astype(np.float32)
        return vectors

    def _rows(self, features: Any, ids: Any) -> Float32:
        rows = np.zeros((self.total_items, features.shape[1]), np.float32)
        given = features[: self.total_items]
        rows[: given.shape[0]] = given.toarray() if sp.issparse(given) else given
        if ids is not None:
            # cornac sorts features by the numbers of the items and leaves the rest where it was, so
            # an item without features finds those of another one in its place.
            of = dict(enumerate(list(ids)[: self.total_items]))
            rows[[row for row, item in enumerate(self.item_ids) if of.get(row) != item]] = 0
        return rows

    def _scores(self, user: int) -> Float32:
        model, users = self.model, np.array([user])
        weights = model._weights_of(users)
        scores: Float32 = model._index.scores(users, model.user_items_[users], weights)[0]
        # What no modality knows anything of is as good as the worst, as with all models of cornac.
        unknown = np.isnan(scores)
        scores[unknown] = 0 if unknown.all() else np.nanmin(scores)
        return scores
