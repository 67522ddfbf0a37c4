"""implicit's files of factors: NumPy's ``.npz``, read without pickle and held against what fits."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import FormatError

__all__ = ["load_factors", "read_npz", "save_factors"]

_SCALARS: dict[str, Any] = {
    "factors": int,
    "regularization": float,
    "alpha": float,
    "iterations": int,
    "use_native": bool,
    "use_cg": bool,
    "cg_steps": int,
    "calculate_training_loss": bool,
    "random_state": int,
}
_MATRICES = ("user_factors", "item_factors")


def read_npz(fileobj_or_path: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file; its name may lack the ``.npz`` that NumPy appends."""
    if isinstance(fileobj_or_path, (str, os.PathLike)):
        fileobj_or_path = os.fspath(fileobj_or_path)
        if not fileobj_or_path.endswith(".npz"):
            fileobj_or_path += ".npz"
    try:
        with np.load(fileobj_or_path, allow_pickle=False) as data:
            return dict(data)
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"load: the file must be one of implicit's models; got {error}"
        ) from error


def save_factors(model: Any, fileobj_or_path: Any) -> None:
    """Write factors and parameters.

    The number of threads stays behind: it belongs to the machine. So does a random state that is no
    seed, which NumPy would pickle.
    """
    values = {name: getattr(model, name) for name in (*_MATRICES, *_SCALARS)}
    if not isinstance(model.random_state, (int, np.integer)):
        del values["random_state"]
    kept = {name: value for name, value in values.items() if value is not None}
    np.savez(fileobj_or_path, dtype=np.array(model.dtype.name), **kept)


def load_factors(model: Any, fileobj_or_path: Any) -> None:
    """Set what a file of `save_factors` or of implicit has; other names in it are left out."""
    data = read_npz(fileobj_or_path)
    try:
        for name, kind in _SCALARS.items():
            if name in data:
                setattr(model, name, kind(data[name].item()))
        if "dtype" in data:
            model.dtype = np.dtype(str(data["dtype"]))
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"load: parameters must be numbers; got {error}") from error
    for name in _MATRICES:
        matrix = data.get(name)
        if matrix is None:
            continue
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.shape[1] != model.factors:
            raise FormatError(
                f"load: {name} must be a matrix of {model.factors} factors; "
                f"got {matrix.dtype} of shape {matrix.shape}"
            )
        setattr(model, name, matrix)
