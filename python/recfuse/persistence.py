"""Estimators in model files: parameters and learned arrays as data, never code."""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse import storage
from recfuse._base import Estimator
from recfuse._inputs import check_structure
from recfuse._label_codec import label_from_text, label_to_text
from recfuse._retrieval_file import described
from recfuse.errors import FormatError, NotFittedError

__all__ = ["NO_ESTIMATOR", "Arrays", "decoded", "encoded", "load", "save"]

_KIND = "estimator"
# Kinds of files that are read by a class of their own.
_KINDS = {
    "retriever": ("recfuse.serving.retriever", "Retriever"),
    "pipeline": ("recfuse.serving.pipeline", "Pipeline"),
}
# Ids and the like, in lists longer than this, are arrays: a header is for what is small.
_LONGEST_LIST = 256
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
    arrays = Arrays()
    metadata = {"estimator": encoded(estimator, type(estimator).__name__, arrays)}
    if estimator._holds_retrieval():
        metadata["retrieval"] = described(estimator._retrieval(), arrays, arrays.names)
    storage.write(path, arrays, metadata, kind=_KIND)


class Arrays(dict[str, Any]):
    """What a file will hold, and under which name each array, matrix or id space lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}  # by id()
        self._noted: list[Any] = []  # alive, so that no other object gets such an id
        self._places: dict[Any, str] = {}

    def note(self, value: Any, name: str) -> None:
        """Remember that `value` is what lies under `name`."""
        self._noted.append(value)
        self.names[id(value)] = name

    def place(self, array: NDArray[Any], name: str) -> tuple[str, bool]:
        """Return the name of this piece of memory, and whether it is new."""
        key = (array.ctypes.data, array.dtype.str, array.shape, array.strides)
        first = self._places.setdefault(key, name)
        self.note(array, first)
        return first, first == name


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
    estimator, Retriever or serving.Pipeline
        Of the class that was saved, ready to use.

    Raises
    ------
    FormatError
        If the file is damaged, is newer than this library, or is no model file.
    ValueError
        If a `serving.Pipeline` has encoders that no file holds: its own `load` takes them.
    OSError
        If it cannot be read.
    """
    file = storage.open_file(path, verify=verify)
    if file.kind in _KINDS:
        module, name = _KINDS[file.kind]
        return getattr(importlib.import_module(module), name)._of_file(file, os.fspath(path))
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


def encoded(value: Any, name: str, arrays: Arrays) -> Any:
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
        place, new = arrays.place(value, name)
        if new:
            arrays[place] = value
        return {"array": place}
    if sp.issparse(value):
        csr = sp.csr_array(value)
        for part in ("indptr", "indices", "data"):
            arrays[f"{name}.{part}"] = getattr(csr, part)
        arrays.note(value, name)
        return {"csr": name, "shape": list(csr.shape)}
    if isinstance(value, (list, tuple)):
        column = _column(value)
        if column is not None:
            arrays[name] = column
            return {"column": name}
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


def _labels(labels: NDArray[Any], name: str, arrays: Arrays) -> str:
    """Store ids of any known type as text; return the name of their array."""
    place, new = arrays.place(labels, name)
    if new:
        texts = [label_to_text(label, name) for label in labels]
        arrays[place] = np.fromiter(texts, object, len(texts))
    return place


def _column(values: Sequence[Any]) -> NDArray[Any] | None:
    """Return a long list of text or of integers as an array."""
    if len(values) <= _LONGEST_LIST:
        return None
    types = set(map(type, values))
    if types == {str}:
        return np.fromiter(values, object, len(values))
    fits = types == {int} and min(values) >= -(2**63) and max(values) < 2**63
    return np.array(values, np.int64) if fits else None


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
    if "column" in value:
        return arrays[value["column"]].tolist()
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
