"""Runs of a model as CUDA graphs: for small batches, whose kernels are quicker than their launches.

A graph reads and writes the buffers that it was captured with. So there is one per shape of the
inputs, its inputs are copied into these buffers, and its output must be taken before the next run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.serving._session import device_of, load_runtime, run_in_place, told

__all__ = ["Captured"]

_MOST_GRAPHS = 64  # further shapes are run as without graphs
_UNCAPTURED = "-1"


class Captured:
    """The graphs of a session that was opened for them, one for every shape that it has seen."""

    def __init__(self, session: Any, output: str) -> None:
        self._session, self._output = session, output
        self._graphs: dict[Any, _Graph] = {}
        self._lock = threading.Lock()  # ONNX Runtime replays one graph at a time

    @contextlib.contextmanager
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[Any]:
        """Run a batch; its output, an OrtValue where the session runs, holds inside the block."""
        shapes = tuple((name, x.shape, x.dtype.str) for name, x in feeds.items())
        with self._lock:
            graph = self._graphs.get(shapes)
            if graph is None:
                value = run_in_place(self._session, self._output, feeds, _options(_UNCAPTURED))
                if len(self._graphs) < _MOST_GRAPHS:
                    number = len(self._graphs) + 1
                    self._graphs[shapes] = _Graph(self._session, self._output, feeds, value, number)
            else:
                value = graph.run(feeds)
            yield value


class _Graph:
    """Buffers that stay, and the graph that uses them, captured in its first run."""

    def __init__(
        self, session: Any, output: str, feeds: Mapping[str, NDArray[Any]], like: Any, number: int
    ) -> None:
        make, device = load_runtime().OrtValue, device_of(session)
        self._session, self._options = session, _options(str(number))
        self._inputs = {
            # Of its own: on the host, one made from an array is that very array.
            name: make.ortvalue_from_shape_and_type(array.shape, array.dtype, device, 0)
            for name, array in feeds.items()
        }
        self._output = make.ortvalue_from_shape_and_type(
            like.shape(), np.dtype(_NUMPY[like.data_type()]), device, 0
        )
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output(output, self._output)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Any:
        with told(self._session, feeds):
            for name, array in feeds.items():
                self._inputs[name].update_inplace(np.ascontiguousarray(array))
            self._session.run_with_iobinding(self._binding, self._options)
            self._binding.synchronize_outputs()
        return self._output


_NUMPY = {
    "tensor(float)": "f4",
    "tensor(float16)": "f2",
    "tensor(double)": "f8",
    **{f"tensor({kind}{8 * n})": f"{kind[0]}{n}" for kind in ("int", "uint") for n in (1, 2, 4, 8)},
}


def _options(graph: str) -> Any:
    options = load_runtime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options
