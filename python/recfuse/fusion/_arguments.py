"""What `MultimodalRecommender` is given, checked and in one shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_int, as_matrix
from recfuse.fusion.blocks import ContentBlock, presence_of
from recfuse.interactions import Interactions

__all__ = [
    "behaviour_models",
    "content_blocks",
    "full_weights",
    "later_events",
    "list_length",
    "new_item_vectors",
    "segment_labels",
    "takes_y",
]

F = TypeVar("F", bound=Callable[..., Any])


def takes_y(fit: F) -> F:
    """Decorate a `fit` whose second argument is `items`, for scikit-learn's pipelines.

    They call ``fit(x, None, items=...)``: the None stands for a `y`, which there is none of here.
    """

    @functools.wraps(fit)
    def call(self: Any, user_items: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and args[0] is None and "items" in kwargs:
            args = ()
        return fit(self, user_items, *args, **kwargs)

    return cast(F, call)


def behaviour_models(behaviour: Any) -> dict[str, Any]:
    """Return the models by name."""
    if not isinstance(behaviour, Mapping):
        raise TypeError(
            f"behaviour must be a mapping modality -> estimator; got {type(behaviour).__name__}"
        )
    return dict(behaviour)


def later_events(validation: Any, user_items: Any, shape: tuple[int, int]) -> sp.csr_array:
    """Return the held-out events, which are of the same users and items."""
    if isinstance(validation, Interactions) and isinstance(user_items, Interactions):
        for space in ("users", "items"):
            if not np.array_equal(getattr(validation, space), getattr(user_items, space)):
                raise ValueError(
                    f"validation must have the {space} of user_items in the same order; "
                    "got different ones. Split one set of interactions."
                )
    csr = as_csr(validation, "validation")
    if csr.shape != shape:
        raise ValueError(f"validation must have shape {shape}; got {csr.shape}")
    return csr


def list_length(k: Any, name: str = "k") -> int:
    """Return k, an integer of at least 1."""
    if as_int(k, name) < 1:
        raise ValueError(f"{name} must be at least 1; got {k}")
    return int(k)


def full_weights(
    weights: Mapping[str, Any], names: list[str], n_users: int | None = None
) -> dict[str, Any]:
    """Return a finite weight per modality, 0 for those not named; not all are 0.

    With `n_users`, a weight may also be an array with one for each of the users.
    """
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise ValueError(f"weights must name modalities of {names}; got {unknown}")
    full = {name: _weight(weights.get(name, 0.0), name, n_users) for name in names}
    nothing = ~np.any([np.broadcast_to(w != 0, n_users or 1) for w in full.values()], axis=0)
    if nothing.any():
        raise ValueError(f"weights must not all be 0; got {dict(weights)}")
    return full


def segment_labels(segments: Any, n_users: int, *, fitted: bool) -> NDArray[Any] | None:
    """Return the segment of every user."""
    if segments is None:
        return None
    if not fitted:
        raise ValueError("segments must be None unless weights='fit'; got labels")
    labels = np.asarray(segments)
    if labels.shape != (n_users,):
        raise ValueError(f"segments must have shape ({n_users},); got {labels.shape}")
    return labels


def _weight(weight: Any, name: str, n_users: int | None) -> Any:
    if n_users is not None and np.ndim(weight) == 1:
        values = np.asarray(weight, np.float64)
        if values.shape != (n_users,) or not np.isfinite(values).all():
            raise ValueError(
                f"weights[{name!r}] must be one finite number, or one per user ({n_users}); "
                f"got {weight!r}"
            )
        return values
    try:
        value = float(weight)
    except (TypeError, ValueError):
        raise TypeError(f"weights[{name!r}] must be a number; got {weight!r}") from None
    if not np.isfinite(value):
        raise ValueError(f"weights[{name!r}] must be finite; got {value}")
    return value


def content_blocks(
    items: Mapping[str, ArrayLike],
    users: Mapping[str, ArrayLike],
    present: Mapping[str, ArrayLike],
    shape: tuple[int, int],
) -> dict[str, ContentBlock]:
    """Return the content modalities, centred, with the vectors of users where they are given."""
    for argument, mapping in (("items", items), ("users", users), ("present", present)):
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"{argument} must be a mapping modality -> array; got {type(mapping).__name__}"
            )
        unknown = [name for name in mapping if name not in items]
        if unknown:
            raise ValueError(
                f"{argument} must name modalities of items {list(items)}; got {unknown}"
            )
    blocks = {}
    for name, given in items.items():
        vectors = as_matrix(given, f"items[{name!r}]")
        if len(vectors) != shape[1]:
            raise ValueError(
                f"items[{name!r}] must have one row per column of user_items ({shape[1]}); "
                f"got {len(vectors)}"
            )
        here = presence_of(vectors)
        if name in present:
            here &= _flags(present[name], name, len(vectors))
        user_vectors = None
        if name in users:
            user_vectors = as_matrix(users[name], f"users[{name!r}]")
            if user_vectors.shape != (shape[0], vectors.shape[1]):
                raise ValueError(
                    f"users[{name!r}] must have shape {(shape[0], vectors.shape[1])}; "
                    f"got {user_vectors.shape}"
                )
        blocks[name] = ContentBlock.fit(vectors, here, user_vectors)
    return blocks


def new_item_vectors(
    items: Mapping[str, ArrayLike], content: Mapping[str, ContentBlock]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]:
    """Return vectors and presence of items that the catalogue does not have."""
    unknown = [name for name in items if name not in content]
    if unknown or not items:
        raise ValueError(f"items must name modalities of {list(content)}; got {list(items)}")
    vectors, present = {}, {}
    for name, given in items.items():
        block, matrix = content[name], as_matrix(given, f"items[{name!r}]")
        if matrix.shape[1] != block.dim:
            raise ValueError(
                f"items[{name!r}] must have {block.dim} columns; got {matrix.shape[1]}"
            )
        present[name] = presence_of(matrix)
        vectors[name] = block.vectors_of_new_items(matrix, present[name])
    return vectors, present


def _flags(present: ArrayLike, name: str, n_items: int) -> NDArray[np.bool_]:
    flags = np.asarray(present)
    if flags.dtype != np.bool_:
        raise TypeError(f"present[{name!r}] must be boolean; got dtype {flags.dtype}")
    if flags.shape != (n_items,):
        raise ValueError(f"present[{name!r}] must have shape ({n_items},); got {flags.shape}")
    return flags
