"""ONNX files from PyTorch networks, checked against the network before they are handed out."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.serving._session import open_session

__all__ = ["export_onnx"]

_PARITY = 1e-5  # of the largest absolute value of an output, or of 1


def export_onnx(
    network: Any, examples: Mapping[str, Any], *, outputs: Sequence[str] = ("output",)
) -> bytes:
    """Write a PyTorch network as ONNX with a free batch size, and check that it answers the same.

    ONNX Runtime gets the examples, and a batch of another size made of them; no answer may differ
    from PyTorch's by more than 1e-5 of the largest value of the output (of 1 for smaller ones).

    Parameters
    ----------
    network : torch.nn.Module
        Exported as in evaluation: without dropout. Its mode is put back afterwards.
    examples : mapping of str to array-like
        One array of at least two rows per argument of ``forward``, in its order, in the dtypes that
        the network takes; the first axis is the batch. The names become those of the inputs.
    outputs : sequence of str, default=('output',)
        Names of what ``forward`` returns: a tensor, or a tuple of them.

    Returns
    -------
    bytes
        The model, for `OnnxEncoder` or a file.

    Raises
    ------
    ImportError
        If torch, onnxscript or onnxruntime is not installed (extra ``recfuse[train]``).
    ValueError
        If `examples` is empty, has fewer than two rows or unequal numbers of them, or if the
        network returns another number of tensors than `outputs` has names.
    RuntimeError
        If the exported model answers otherwise than the network.

    Examples
    --------
    >>> import numpy as np, recfuse
    >>> from recfuse.serving import export_onnx
    >>> def tower():
    ...     from torch import nn
    ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> def vectors(rows):  # where torch is installed
    ...     model = export_onnx(tower(), {"input": np.ones((2, 4), np.float32)})
    ...     return recfuse.OnnxEncoder(model).encode(rows)
    """
    torch = _load_torch()
    arrays = {name: np.asarray(array) for name, array in examples.items()}
    rows = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(rows) != 1 or min(rows) < 2:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(
            f"export_onnx: examples must have the same number of rows, at least 2; got {shapes}"
        )
    training = network.training
    network.eval()
    try:
        model = _export(torch, network, arrays, list(outputs))
        _check_parity(torch, network, model, arrays, list(outputs))
    finally:
        network.train(training)
    return model


def _load_torch() -> Any:
    try:
        importlib.import_module("onnxscript")  # what the exporter of torch is written with
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"export_onnx needs {error.name}: pip install 'recfuse[train]'"
        ) from error


def _export(
    torch: Any, network: Any, arrays: Mapping[str, NDArray[Any]], outputs: list[str]
) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(torch.as_tensor(array) for array in arrays.values()),
            dynamo=True,
            verbose=False,
            input_names=list(arrays),
            output_names=outputs,
            dynamic_shapes=tuple({0: "n"} for _ in arrays),
        )
    model: bytes = program.model_proto.SerializeToString()
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about its own insides; errors are raised all the same."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _check_parity(
    torch: Any, network: Any, model: bytes, arrays: Mapping[str, NDArray[Any]], outputs: list[str]
) -> None:
    session = open_session(model, "cpu", 1)
    n_rows = len(next(iter(arrays.values())))
    for rows in (np.arange(n_rows), np.arange(2 * n_rows + 1) % n_rows, np.arange(1)):
        batch = {name: array[rows] for name, array in arrays.items()}
        with torch.no_grad():
            answer = network(*(torch.as_tensor(array) for array in batch.values()))
        expected = answer if isinstance(answer, tuple) else (answer,)
        if len(expected) != len(outputs):
            raise ValueError(
                f"export_onnx: outputs must name the {len(expected)} tensors of the network; "
                f"got {outputs}"
            )
        got = session.run(outputs, batch)
        for name, want, have in zip(outputs, expected, got, strict=True):
            wanted = want.numpy().astype(np.float64)
            error = np.abs(wanted - have).max() if wanted.shape == have.shape else np.inf
            if not error <= _PARITY * max(1.0, np.abs(wanted).max()):
                raise RuntimeError(
                    f"export_onnx: output {name!r} must be that of the network; ONNX Runtime's "
                    f"differs by {error:.2g} in a batch of {len(rows)} (shape {have.shape}, "
                    f"not {wanted.shape})"
                )
