"""A common space of several modalities, by scikit-learn's PCA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._inputs import as_int, as_matrix
from recfuse._named import named

__all__ = ["CommonSpace"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class CommonSpace(Estimator):
    r"""Project modalities of any width into one space, where their vectors can be added.

    Every modality gets a matrix :math:`A_m` of its own, and :math:`z_m = (x_m - \mu_m) A_m`.

    'pca': the directions in which the modalities, side by side, vary most; the sum of all
    :math:`z_m` of a row is its projection by the PCA of the concatenated row. A modality with
    larger numbers counts for more.

    'cca': the directions that the modalities have in common. Each is whitened first, so its scale
    does not matter; for two modalities these are the directions of canonical correlation analysis,
    for more its MAXVAR generalisation [1]_. Vectors of one item from different modalities come
    to lie near each other, so one modality can be searched by another.

    Parameters
    ----------
    dim : int, default=64
        Of the space; at most the sum of the widths ('pca'), and in 'cca' there is nothing in
        common beyond the width of the second widest.
    method : {'cca', 'pca'}, default='cca'
    tol : float, default=1e-6
        'cca' leaves directions of a modality out whose deviation is below this part of its
        largest: whitening would blow up what is noise.

    Attributes
    ----------
    modalities_ : list of str
    means_ : dict of str to ndarray of shape (dim_m,), float64
    projections_ : dict of str to ndarray of shape (dim_m, dim), float64

    References
    ----------
    .. [1] J. R. Kettenring, "Canonical analysis of several sets of variables", Biometrika 58(3),
       1971.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.fusion import CommonSpace, weighted_average
    >>> rng = np.random.default_rng(0)
    >>> topics, draw = rng.normal(size=(50, 2)), rng.normal
    >>> items = {"text": topics @ draw(size=(2, 5)), "image": topics @ draw(size=(2, 3))}
    >>> space = CommonSpace(dim=2).fit(items)
    >>> projected = space.transform(items)
    >>> np.allclose(projected["text"], projected["image"], atol=1e-5)
    True
    >>> weighted_average(projected, {"text": 0.7, "image": 0.3}).shape
    (50, 2)
    """

    _input_tags = ("dict",)

    def __init__(self, dim: int = 64, method: str = "cca", *, tol: float = 1e-6) -> None:
        self.dim = dim
        self.method = method
        self.tol = tol

    @named("fit")
    def fit(self, blocks: Mapping[str, ArrayLike], y: Any = None) -> CommonSpace:
        """Learn a projection per modality.

        Parameters
        ----------
        blocks : mapping modality -> array-like of shape (n, dim_m)
            Row by row the same items; a row that a modality lacks (zeros or a NaN) is left out.
        y : ignored

        Raises
        ------
        ImportError
            Without scikit-learn (extra ``recfuse[features]``).
        TypeError, ValueError
            If shapes or parameters do not fit.
        """
        if self.method not in ("pca", "cca"):
            raise ValueError(f"method must be 'cca' or 'pca'; got {self.method!r}")
        rows = _complete(blocks)
        widest = min(sum(x.shape[1] for x in rows.values()), len(next(iter(rows.values()))))
        if not 1 <= as_int(self.dim, "dim") <= widest:
            raise ValueError(f"dim must be in [1, {widest}], what the data span; got {self.dim}")
        means = {name: x.mean(axis=0) for name, x in rows.items()}
        maps = {
            name: self._whitening(x) if self.method == "cca" else np.eye(x.shape[1])
            for name, x in rows.items()
        }
        joint = np.hstack([(x - means[name]) @ maps[name] for name, x in rows.items()])
        if joint.shape[1] < self.dim:
            raise ValueError(f"dim must be at most {joint.shape[1]}, what varies; got {self.dim}")
        directions = _pca(self.dim).fit(joint).components_.T
        cuts = np.cumsum([m.shape[1] for m in maps.values()])[:-1]
        parts = dict(zip(maps, np.split(directions, cuts), strict=True))
        self.projections_ = {name: maps[name] @ part for name, part in parts.items()}
        self.modalities_, self.means_ = list(rows), means
        return self

    def _whitening(self, x: Float64) -> Float64:
        found = _pca(None).fit(x)
        deviations = np.sqrt(found.explained_variance_)
        kept = deviations > self.tol * deviations.max(initial=0)
        whitening: Float64 = found.components_[kept].T / deviations[kept]
        return whitening

    @named("transform")
    def transform(self, blocks: Mapping[str, ArrayLike]) -> dict[str, Float32]:
        """Project rows of any of the modalities.

        Parameters
        ----------
        blocks : mapping modality -> array-like of shape (n, dim_m)

        Returns
        -------
        dict of str to ndarray of shape (n, dim), float32
            Zeros where a row lacks a modality (zeros or a NaN).

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if a modality is unknown or its width differs.
        """
        check_fitted(self, "projections_")
        out = {}
        for name, block in blocks.items():
            if name not in self.projections_:
                raise ValueError(f"blocks must name modalities of {self.modalities_}; got {name!r}")
            x = as_matrix(block, f"blocks[{name!r}]")
            if x.shape[1] != len(self.means_[name]):
                raise ValueError(
                    f"blocks[{name!r}] must have {len(self.means_[name])} columns; got {x.shape[1]}"
                )
            here = _present(x)
            z = np.zeros((len(x), self.dim), np.float32)
            z[here] = (x[here].astype(np.float64) - self.means_[name]) @ self.projections_[name]
            out[name] = z
        return out


def _pca(n: int | None) -> Any:
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise ImportError(
            "CommonSpace needs scikit-learn: pip install 'recfuse[features]'"
        ) from error
    return PCA(n, svd_solver="full")


def _present(x: Float32) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(x).all(axis=1) & x.any(axis=1))


def _complete(blocks: Mapping[str, ArrayLike]) -> dict[str, Float64]:
    """Return the rows that have every modality, in float64."""
    if not isinstance(blocks, Mapping):
        raise TypeError(f"blocks must be a mapping modality -> array; got {type(blocks).__name__}")
    if len(blocks) < 2:
        raise ValueError(f"blocks must have at least 2 modalities; got {list(blocks)}")
    rows = {name: as_matrix(x, f"blocks[{name!r}]") for name, x in blocks.items()}
    first = next(iter(rows))
    for name, x in rows.items():
        if len(x) != len(rows[first]):
            raise ValueError(
                f"blocks[{name!r}] must have {len(rows[first])} rows like blocks[{first!r}]; "
                f"got {len(x)}"
            )
    here = np.logical_and.reduce([_present(x) for x in rows.values()])
    if here.sum() < 2:
        raise ValueError(
            f"blocks must have at least 2 rows with every modality; got {int(here.sum())}"
        )
    return {name: x[here].astype(np.float64) for name, x in rows.items()}
