"""Vectors that stay where a session runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.serving._batches import ArrayBatches, Batch, TensorSpec, TextBatches
from recfuse.serving._captured import Captured
from recfuse.serving._options import Pooling
from recfuse.serving._session import (
    device_of,
    load_runtime,
    open_session,
    run_in_place,
    run_into,
)
from recfuse.serving._tail import tail_model

__all__ = ["Placed"]

_FLOAT = "tensor(float)"


class Placed:
    """A session whose results are OrtValues in its own memory."""

    def __init__(self, session: Any, num_threads: int, captured: Captured | None = None) -> None:
        self._session, self._num_threads, self._captured = session, num_threads, captured
        self._tails: dict[tuple[Any, ...], Any] = {}

    def put(self, array: NDArray[Any]) -> Any:
        """Return a copy of an array of the host."""
        device = device_of(self._session)
        return load_runtime().OrtValue.ortvalue_from_numpy(array, device, 0)

    def vectors(
        self,
        batches: ArrayBatches | TextBatches,
        output: TensorSpec,
        pooling: Pooling | None,
        normalise: bool,
    ) -> Any:
        """Return one vector per row, (n, dim) in float32; batches must be slices in their order."""
        whole, start = None, 0
        for batch in batches:
            with self._run(batch, output.name) as hidden:
                shape = tuple(hidden.shape())
                _check(shape, batch, pooling, output.name)
                plain = pooling is None and not normalise and hidden.data_type() == _FLOAT
                # But the buffer of a graph is the next run's, too.
                own = self._captured is None and batch.n_rows == batches.n_rows
                if plain and len(shape) == 2 and own:
                    return hidden
                if whole is None:
                    dim = shape[2] if pooling else int(np.prod(shape[1:]))
                    whole = load_runtime().OrtValue.ortvalue_from_shape_and_type(
                        [batches.n_rows, dim], np.float32, device_of(self._session), 0
                    )
                feeds = {"hidden": hidden}
                if pooling is not None:
                    mask = np.ones(shape[:2], np.bool_) if batch.mask is None else batch.mask
                    feeds["mask"] = np.ascontiguousarray(mask)
                tail = self._tail(hidden.data_type(), len(shape), pooling, normalise)
                place = whole.data_ptr() + 4 * dim * start
                run_into(tail, "vectors", feeds, (batch.n_rows, dim), place)
            start += batch.n_rows
        return whole

    @contextlib.contextmanager
    def _run(self, batch: Batch, output: str) -> Iterator[Any]:
        if self._captured is None:
            yield run_in_place(self._session, output, batch.feeds)
        else:
            with self._captured.run(batch.feeds) as hidden:
                yield hidden

    def _tail(self, element: str, rank: int, pooling: Pooling | None, normalise: bool) -> Any:
        """Return the session of what follows the model, opened when it is needed first."""
        key = element, rank, pooling, normalise
        if key not in self._tails:
            codes = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8"}
            if element not in codes:
                raise TypeError(
                    f"encode_on_device: output must hold floating point numbers; got {element}"
                )
            model = tail_model(codes[element], rank, pooling, normalise=normalise)
            self._tails[key] = open_session(model, device_of(self._session), self._num_threads)
        return self._tails[key]


def _check(shape: tuple[int, ...], batch: Batch, pooling: Pooling | None, name: str) -> None:
    fed = len(next(iter(batch.feeds.values())))
    if not shape or shape[0] != fed:
        raise ValueError(
            f"encode: output {name!r} must have one row per row of the inputs; "
            f"got shape {shape} for {fed} rows"
        )
    if fed != batch.n_rows:
        raise ValueError(
            f"encode_on_device: inputs must fill the batches of the model, of {fed} rows each; "
            f"got {batch.n_rows} rows in the last"
        )
    if pooling is not None and len(shape) != 3:
        raise ValueError(
            f"encode: output {name!r} must be (n, tokens, dim) for pooling {pooling!r}; got {shape}"
        )
    if pooling is not None and batch.mask is not None and batch.mask.shape != shape[:2]:
        raise ValueError(
            f"encode: inputs['attention_mask'] must have shape {shape[:2]} like output {name!r}; "
            f"got {batch.mask.shape}"
        )
    if pooling is None and sum(axis != 1 for axis in shape[1:]) > 1:
        raise ValueError(f"encode: output {name!r} must be (n, dim) without pooling; got {shape}")
