"""Pipelines in files: items, options and encoders as data, never code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from recfuse import storage
from recfuse._base import Estimator
from recfuse.errors import FormatError
from recfuse.persistence import decoded, encoded
from recfuse.serving.encoder import OnnxEncoder

__all__ = ["read", "write"]

_KIND = "pipeline"
_PARTS = ("items", "present", "metric", "encoders", "options")


def write(path: str | os.PathLike[str], parts: Mapping[str, Any]) -> None:
    """Write `parts`: data, and under ``encoders`` an encoder per modality.

    Encoders that are no data (functions, those of other libraries) are named, and left out.
    """
    arrays: dict[str, Any] = {}
    known = {name: _encoder_state(encoder) for name, encoder in parts["encoders"].items()}
    root = encoded({**parts, "encoders": known}, "pipeline", arrays)
    storage.write(path, arrays, {"pipeline": root}, kind=_KIND)


def read(
    path: str | os.PathLike[str],
    encoders: Mapping[str, Any] | None,
    device: str,
    num_threads: int,
) -> dict[str, Any]:
    """Return what `write` was given, with `encoders` in the place of those of the file."""
    arrays, metadata = storage.read(path, kind=_KIND)
    try:
        stored = decoded(metadata["pipeline"], arrays)
        parts: dict[str, Any] = {name: stored[name] for name in _PARTS}
        given = dict(encoders or {})
        for name, state in parts["encoders"].items():
            if name not in given and state["kind"] != "other":
                given[name] = _encoder(state, device, num_threads)
        left = {n: s["type"] for n, s in parts["encoders"].items() if n not in given}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise FormatError(f"load: {os.fspath(path)!r} must describe a pipeline; {error}") from error
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
            encoded(encoder, "encoder", {})
        except TypeError:  # a class that model files do not have
            pass
        else:
            return {"kind": "estimator", "estimator": encoder}
    return {"kind": "other", "type": type(encoder).__name__}


def _encoder(state: Mapping[str, Any], device: str, num_threads: int) -> Any:
    if state["kind"] == "estimator":
        return state["estimator"]
    tokenizer = state["tokenizer"].tobytes() if "tokenizer" in state else None
    return OnnxEncoder(
        state["model"].tobytes(),
        tokenizer=tokenizer,
        device=device,  # type: ignore[arg-type]
        num_threads=num_threads,
        **state["options"],
    )
