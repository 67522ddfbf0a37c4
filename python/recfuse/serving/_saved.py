"""Pipelines in files: items, options and encoders as data, never code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from recfuse import storage
from recfuse._base import Estimator
from recfuse._retrieval import Retrieval
from recfuse._retrieval_file import described
from recfuse.errors import FormatError
from recfuse.persistence import NO_ESTIMATOR, Arrays, decoded, encoded
from recfuse.serving.encoder import OnnxEncoder

__all__ = ["KIND", "read", "write"]

KIND = "pipeline"
_PARTS = ("items", "present", "metric", "encoders", "options")
_OF_ONNX = (
    "batch_size",
    "output",
    "max_length",
    "pooling",
    "normalise",
    "dtype",
    "nan_policy",
)


def write(
    path: str | os.PathLike[str], parts: Mapping[str, Any], retrieval: Retrieval | None
) -> None:
    """Write `parts`: data, and under ``encoders`` an encoder per modality.

    Encoders that are no data (functions, those of other libraries) are named, and left out. The
    search is described for readers without encoders, where there is one that they can do.
    """
    arrays = Arrays()
    known = {name: _encoder_state(encoder) for name, encoder in parts["encoders"].items()}
    metadata = {"pipeline": encoded({**parts, "encoders": known}, "pipeline", arrays)}
    if retrieval is not None:
        metadata["retrieval"] = described(retrieval, arrays, arrays.names)
    storage.write(path, arrays, metadata, kind=KIND)


def read(
    file: storage.StoredFile,
    path: str,
    encoders: Mapping[str, Any] | None,
    device: str,
    num_threads: int,
) -> dict[str, Any]:
    """Return what `write` was given, with `encoders` in the place of those of the file."""
    try:
        stored = decoded(file.metadata["pipeline"], file.arrays)
        parts: dict[str, Any] = {name: stored[name] for name in _PARTS}
        for name in ("items", "options"):
            if not isinstance(parts[name], dict):
                raise TypeError(f"{name} must be by name; got {parts[name]!r:.99}")
        given = dict(encoders or {})
        for name, state in parts["encoders"].items():
            if name not in given and state["kind"] != "other":
                given[name] = _encoder(state, device, num_threads)
        left = {n: s["type"] for n, s in parts["encoders"].items() if n not in given}
    except NO_ESTIMATOR as error:
        raise FormatError(f"load: {path!r} must describe a pipeline; {error}") from error
    if left:
        raise ValueError(
            f"encoders must have those that no file can hold, {left}; got {list(encoders or {})}"
        )
    return {**parts, "encoders": given}


def _encoder_state(encoder: Any) -> dict[str, Any]:
    if isinstance(encoder, OnnxEncoder):
        model, tokenizer, options = encoder._file_parts()
        state: dict[str, Any] = {"kind": "onnx", "model": np.frombuffer(model, np.uint8)}
        if tokenizer is not None:
            state["tokenizer"] = np.frombuffer(tokenizer, np.uint8)
        return {**state, "options": options}
    if isinstance(encoder, Estimator):
        try:
            encoded(encoder, "encoder", Arrays())
        except TypeError:  # a class that model files do not have
            pass
        else:
            return {"kind": "estimator", "estimator": encoder}
    return {"kind": "other", "type": type(encoder).__name__}


def _encoder(state: Mapping[str, Any], device: str, num_threads: int) -> Any:
    if state["kind"] == "estimator":
        if not isinstance(state["estimator"], Estimator):
            raise TypeError(f"an encoder must be an estimator; got {state['estimator']!r:.99}")
        return state["estimator"]
    # What else the encoder takes, such as the folder of a cache, is no file's business.
    options = {name: state["options"][name] for name in _OF_ONNX}
    tokenizer = state["tokenizer"].tobytes() if "tokenizer" in state else None
    return OnnxEncoder(
        state["model"].tobytes(),
        tokenizer=tokenizer,
        device=device,  # type: ignore[arg-type]
        num_threads=num_threads,
        **options,
    )
