"""What the programs of this folder must give: float64 NumPy, written down as the formulas are."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def parameters(network: Any) -> dict[str, Array]:
    """Return the weights of a PyTorch network by name, in float64."""
    return {name: w.detach().numpy().astype(np.float64) for name, w in network.named_parameters()}


def dense(x: Array, weight: Array, bias: Array) -> Array:
    return x @ weight.T + bias


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def convolution(images: Array, weight: Array, bias: Array, stride: int = 1) -> Array:
    """Slide the filters (out, in, h, w) over images (n, in, height, width), without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(images, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True) + bias[:, None, None]


def max_pool(images: Array, size: int = 2) -> Array:
    n, channels, height, width = images.shape
    cut = images[:, :, : height // size * size, : width // size * size]
    tiles = cut.reshape(n, channels, height // size, size, width // size, size)
    return tiles.max(axis=(3, 5))


def lstm(steps: Array, w_in: Array, w_state: Array, b_in: Array, b_state: Array) -> Array:
    """Return the last state of sequences (n, steps, dim); the gates are in PyTorch's order."""
    state = cell = np.zeros((len(steps), w_state.shape[1]))
    for t in range(steps.shape[1]):
        gates = dense(steps[:, t], w_in, b_in) + dense(state, w_state, b_state)
        add, forget, new, out = np.split(gates, 4, axis=1)
        cell = sigmoid(forget) * cell + sigmoid(add) * np.tanh(new)
        state = sigmoid(out) * np.tanh(cell)
    return state


def cosine(queries: Array, items: Array) -> Array:
    """Return all cosines of float64 rows."""
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return q @ (items / np.linalg.norm(items, axis=1, keepdims=True)).T


def topk(scores: Array, k: int) -> Array:
    """Return the ids of the k best of every row: score descending, then id ascending."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def assert_close(got: Any, expected: Any, what: str, tolerance: float = 1e-5) -> None:
    """Stop unless `got` is `expected` but for `tolerance` of the largest value (of 1 at least)."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, not {expected.shape}"
    error = np.abs(got - expected).max()
    assert error <= tolerance * max(1.0, np.abs(expected).max()), f"{what}: wrong by {error:.2g}"


def assert_ranking(ids: Array, scores: Array, expected: Array, what: str) -> None:
    """Stop unless the scores are the k best of `expected`, each that of its id."""
    best = np.sort(expected, axis=1)[:, ::-1][:, : ids.shape[1]]
    assert_close(scores, best, f"{what}: scores")
    assert_close(np.take_along_axis(expected, ids.astype(np.intp), axis=1), best, f"{what}: ids")
