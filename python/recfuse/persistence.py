"""Estimators in model files: parameters and learned arrays as data, never code."""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from recfuse import storage
from recfuse._base import Estimator
from recfuse._inputs import check_structure
from recfuse._label_codec import label_from_text, label_to_text
from recfuse._retrieval_file import described
from recfuse.errors import FormatError, NotFittedError

__all__ = ["NO_ESTIMATOR", "decoded", "encoded", "load", "save"]

_KIND = "estimator"
# What a description that is none may raise, on its way to objects.
NO_ESTIMATOR = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


# What a file may name, and where it lives; loading makes objects of nothing else.
_MODULES = {
    "AlternatingLeastSquares": "recfuse.models",
    "AttributeEncoder": "recfuse.features",
    "Cleaner": "recfuse.preprocess",
    "CommonSpace": "recfuse.fusion",
    "ContentBlock": "recfuse.fusion.blocks",
    "EventReader": "recfuse.preprocess",
    "FactorMap": "recfuse.fusion",
    "ItemNeighbours": "recfuse.models",
    "L2Normalizer": "recfuse.preprocess",
    "LabelledModel": "recfuse.models",
    "LinearFusion": "recfuse.fusion",
    "MatrixCompletion": "recfuse.preprocess",
    "MinMax": "recfuse.preprocess",
    "MissingValues": "recfuse.preprocess",
    "MultimodalRecommender": "recfuse.fusion",
    "Pipeline": "recfuse.preprocess",
    "Popularity": "recfuse.models",
    "Retriever": "recfuse.serving.retriever",
    "StackingFusion": "recfuse.fusion",
    "Standardizer": "recfuse.preprocess",
    "TfidfEncoder": "recfuse.features",
    "UserNeighbours": "recfuse.models",
}


def _class_named(name: str) -> Any:
    return getattr(importlib.import_module(_MODULES[name]), name)


def save(estimator: Estimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to one file, in one step.

    Parameters
    ----------
    estimator : a fitted estimator of recfuse
    path : str or path-like
        An existing file is replaced only when the new one is complete.

    Raises
    ------
    NotFittedError
        Before `fit`.
    TypeError
        If a parameter is no data, such as a Generator as `random_state`.
    """
    estimator._read_pending()
    if not any(name.endswith("_") for name in vars(estimator)):
        raise NotFittedError(
            f"save: {type(estimator).__name__} must be fitted; got an unfitted one"
        )
    arrays = _Arrays()
    metadata = {"estimator": encoded(estimator, type(estimator).__name__, arrays)}
    if estimator._holds_retrieval():
        metadata["retrieval"] = described(estimator._retrieval(), arrays, arrays.names)
    storage.write(path, arrays, metadata, kind=_KIND)


class _Arrays(dict[str, Any]):
    """What a file will hold, and under which name each array, matrix or id space lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}  # by id()


def load(path: str | os.PathLike[str], *, verify: bool | None = None) -> Any:
    """Read what `save` wrote; its arrays stay memory-mapped and read-only.

    Parameters
    ----------
    path : str or path-like
    verify : bool, optional
        Compare the checksums of all arrays, which reads the whole file. By default files of up to
        8 MiB are compared and decoded whole. Of a larger one the header is checked; ids and sparse
        matrices are, whole, when they are first used, and raise FormatError then; damage to
        numbers, which cannot harm anything but answers, is found by ``verify=True`` or
        ``recfuse verify``.

    Returns
    -------
    estimator or Retriever
        Of the class that was saved, ready to use.

    Raises
    ------
    FormatError
        If the file is damaged, is newer than this library, or is no model file.
    OSError
        If it cannot be read.
    """
    file = storage.open_file(path, verify=verify)
    if file.kind == "retriever":
        return _class_named("Retriever")._of_file(file, os.fspath(path))
    if file.kind != _KIND:
        raise FormatError(f"load: {path} must be of kind {_KIND!r}; got {file.kind!r:.99}")
    try:
        estimator = decoded(
            file.metadata["estimator"], file.arrays, file.size > storage.CHECKED_BYTES
        )
    except FormatError as error:
        raise FormatError(f"load: {path} {error}") from error.__cause__
    except NO_ESTIMATOR as error:
        raise FormatError(
            f"load: {os.fspath(path)!r} must describe an estimator; {error}"
        ) from error
    if not isinstance(estimator, Estimator):
        raise FormatError(
            f"load: {os.fspath(path)!r} must describe an estimator; got {estimator!r:.99}"
        )
    return estimator


def encoded(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Return `value` as JSON; its arrays go to `arrays` under `name`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O" and value.ndim == 1 and set(map(type, value)) - {str}:
            return {"labels": _labels(value, name, arrays)}
        arrays[name] = value
        return {"array": _noted(value, name, arrays)}
    if sp.issparse(value):
        csr = sp.csr_array(value)
        for part in ("indptr", "indices", "data"):
            arrays[f"{name}.{part}"] = getattr(csr, part)
        return {"csr": _noted(value, name, arrays), "shape": list(csr.shape)}
    if isinstance(value, (list, tuple)):
        return {"list": [encoded(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            keys = np.fromiter(value, object, len(value))
            values = list(value.values())
            return {
                "keys": _labels(keys, f"{name}.keys", arrays),
                "values": encoded(values, f"{name}.values", arrays),
            }
        return {"dict": {k: encoded(v, f"{name}.{k}", arrays) for k, v in value.items()}}
    if type(value).__name__ in _MODULES and type(value) is _class_named(type(value).__name__):
        return {
            "object": type(value).__name__,
            "state": {k: encoded(v, f"{name}.{k}", arrays) for k, v in _state(value).items()},
        }
    raise TypeError(f"save: {name} must be data; got {type(value).__name__}")


def _labels(labels: Any, name: str, arrays: dict[str, Any]) -> str:
    """Store ids of any known type as text; return the name of their array."""
    texts = [label_to_text(label, name) for label in labels]
    arrays[name] = np.fromiter(texts, object, len(texts))
    return _noted(labels, name, arrays)


def _noted(value: Any, name: str, arrays: dict[str, Any]) -> str:
    if isinstance(arrays, _Arrays):
        arrays.names[id(value)] = name
    return name


def _state(value: Any) -> dict[str, Any]:
    """Return parameters and learned attributes; what starts with an underscore is made again."""
    if not isinstance(value, Estimator):
        return dict(value.state())
    value._read_pending()
    learned = {k: v for k, v in vars(value).items() if k.endswith("_") and not k.startswith("_")}
    return {**value.get_params(deep=False), **learned}


def decoded(value: Any, arrays: Mapping[str, Any], lazily: bool = False) -> Any:
    """Return what `encoded` was given; of estimators, `lazily`, what has to be looked at later."""
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "array" in value:
        return arrays[value["array"]]
    if "csr" in value:
        return _csr(value, arrays)
    if "labels" in value:
        return _labels_of(arrays[value["labels"]])
    if "keys" in value:
        keys = _labels_of(arrays[value["keys"]])
        return dict(zip(keys, decoded(value["values"], arrays, lazily), strict=True))
    if "list" in value:
        return [decoded(v, arrays, lazily) for v in value["list"]]
    if "dict" in value:
        return {k: decoded(v, arrays, lazily) for k, v in value["dict"].items()}
    cls = _class_named(value["object"])
    if not issubclass(cls, Estimator):
        return cls.from_state({k: decoded(v, arrays, lazily) for k, v in value["state"].items()})
    return _estimator(cls, value["state"], arrays, lazily)


def _csr(value: dict[str, Any], arrays: Mapping[str, Any]) -> sp.csr_array:
    name = value["csr"]
    parts = [arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr")]
    if parts[1].dtype.kind != "i" or parts[2].dtype.kind != "i":
        raise ValueError(f"{name} must have indices of integers; got {parts[1].dtype}")
    csr = sp.csr_array(tuple(parts), shape=tuple(value["shape"]))
    check_structure(csr, name)
    return csr


def _estimator(
    cls: type[Estimator], state: Mapping[str, Any], arrays: Mapping[str, Any], lazily: bool
) -> Estimator:
    parameters = cls._parameter_names()
    given = {k: decoded(v, arrays, lazily) for k, v in state.items() if k in parameters}
    estimator = cls(**given)
    for name, learned in state.items():
        if name in parameters:
            continue
        if not name.endswith("_") or name.startswith("_"):
            raise ValueError(f"{cls.__name__} has no parameter {name!r}")
        if lazily and not hasattr(cls, name) and _has_to_be_read(learned, arrays):
            estimator._read_later(name, functools.partial(_read, learned, arrays, name))
        else:
            setattr(estimator, name, decoded(learned, arrays, lazily))
    return estimator


def _has_to_be_read(value: Any, arrays: Mapping[str, Any]) -> bool:
    """Whether decoding costs more than a view: strings, sparse matrices, and what has them."""
    if not isinstance(value, dict) or "float" in value:
        return False
    return "array" not in value or f"{value['array']}#utf8" in getattr(arrays, "views", ())


def _read(value: Any, arrays: Mapping[str, Any], name: str) -> Any:
    try:
        return decoded(value, arrays, lazily=True)
    except NO_ESTIMATOR as error:
        raise FormatError(f"load: {name} must be what was saved; {error}") from error


def _labels_of(texts: Any) -> Any:
    labels = [label_from_text(text) for text in texts]
    return np.fromiter(labels, object, len(labels))
