"""Options of an encoder: which values they may have, and what they mean for a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from recfuse.backend import parse_device
from recfuse.serving._batches import TensorSpec
from recfuse.serving._tokens import NAMES, Tokens

__all__ = [
    "Pooling",
    "check_choice",
    "check_count",
    "choose_output",
    "is_texts",
    "resolve_device",
    "stated_dim",
    "text_input",
]

Pooling = Literal["mean", "max", "cls"]


def resolve_device(device: Any) -> str:
    """Return the device to ask for: the argument, or RECFUSE_DEVICE in the place of 'auto'."""
    check_choice("device", device, ("auto", "cpu", "cuda"))
    if device == "auto":
        device = os.environ.get("RECFUSE_DEVICE") or "auto"
        if device.startswith("cuda:"):  # of searches; an encoder has the first GPU
            device = "cuda" if 0 in parse_device(device)[1] else "auto"
        check_choice("RECFUSE_DEVICE", device, ("auto", "cpu", "cuda"))
    return str(device)


def choose_output(specs: list[TensorSpec], name: str | None) -> TensorSpec:
    names = [spec.name for spec in specs]
    if name is None and len(specs) == 1:
        return specs[0]
    if name not in names:
        raise ValueError(f"OnnxEncoder: output must be one of {names}; got {name!r}")
    return specs[names.index(name)]


def stated_dim(spec: TensorSpec, pooling: Pooling | None) -> int | None:
    """Return the length of the vectors, if the model states it; check `pooling` against it."""
    if spec.dtype is not None and spec.dtype.kind not in "fiub":
        raise TypeError(
            f"OnnxEncoder: output must hold real numbers; got {spec.name!r} of {spec.dtype}"
        )
    if spec.shape is None:
        return None
    if pooling is not None:
        if len(spec.shape) != 3:
            raise ValueError(
                f"OnnxEncoder: pooling must be None for output {spec.name!r} of shape {spec}; "
                f"got {pooling!r}"
            )
        return spec.shape[2]
    axes = [axis for axis in spec.shape[1:] if axis != 1]
    if len(axes) > 1:
        raise ValueError(
            "OnnxEncoder: pooling must be 'mean', 'max' or 'cls' for output "
            f"{spec.name!r} of shape {spec}; got None"
        )
    return axes[0] if axes else 1


def is_texts(inputs: Any) -> bool:
    if isinstance(inputs, (list, tuple)):
        return bool(inputs) and isinstance(inputs[0], str)
    return isinstance(inputs, str) or (isinstance(inputs, np.ndarray) and inputs.dtype.kind in "UT")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if not any(value is choice or value == choice for choice in choices):
        words = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"OnnxEncoder: {name} must be one of {words}; got {value!r}")


def check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"OnnxEncoder: {name} must be an integer; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"OnnxEncoder: {name} must be at least {least}; got {value}")


def text_input(tokenizer: Any, inputs: Sequence[TensorSpec], max_length: int | None) -> Tokens:
    """Return the tokenizer as it suits the inputs of a model."""
    names = [spec.name for spec in inputs]
    if len(names) > 1 and not set(names) <= set(NAMES):
        raise ValueError(
            f"OnnxEncoder: tokenizer must be None for a model with the inputs {names}; "
            f"it gives only {list(NAMES)}"
        )
    for spec in inputs:
        if spec.shape is not None and len(spec.shape) != 2:
            raise ValueError(
                "OnnxEncoder: tokenizer must be None for a model whose input "
                f"{spec.name!r} is not (n, tokens); got {spec}"
            )
    static = next((s.shape[1] for s in inputs if s.shape and s.shape[1]), None)
    return Tokens(tokenizer, max_length=max_length, static_length=static)
