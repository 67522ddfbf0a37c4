"""Vectors from a neural encoder in an ONNX file, by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recfuse._progress import progress
from recfuse.serving._batches import (
    ArrayBatches,
    Batch,
    TextBatches,
    static_rows,
    tensor_specs,
)
from recfuse.serving._cache import VectorCache
from recfuse.serving._captured import Captured
from recfuse.serving._on_device import Placed
from recfuse.serving._options import (
    Pooling,
    check_choice,
    check_count,
    choose_output,
    is_texts,
    resolve_device,
    stated_dim,
    text_input,
)
from recfuse.serving._pooling import normalised, pooled
from recfuse.serving._session import (
    device_of,
    external_data,
    load_runtime,
    model_source,
    open_session,
    run,
)

__all__ = ["OnnxEncoder"]


class OnnxEncoder:
    """A neural encoder from an ONNX file: arrays or texts in, one vector per row out.

    The model is run by ONNX Runtime (extra ``recfuse[onnx]``, or ``recfuse[onnx-gpu]`` for CUDA)
    on the device that was asked for; what the session really runs on is checked, never assumed.
    An encoder may be used by several threads at once and may be pickled. A forked child can use it,
    with one thread: those of the session stay with the parent.

    Parameters
    ----------
    path_or_bytes : str, path-like or bytes
        The model. A model whose weights are in a second file must be given as a path.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
        'cuda' is the first CUDA device or a DeviceError, never the CPU; 'auto' is CUDA where the
        session gets it, else the CPU. The environment's RECFUSE_DEVICE takes the place of 'auto'.
    batch_size : int, default=256
        Rows per run of the model. A batch size that is written into the model wins: its last batch
        is filled up and cut.
    output : str, optional
        Name of the output to return. Needed only where the model has several.
    tokenizer : str, path-like, bytes or tokenizers.Tokenizer, optional
        A ``tokenizer.json``; `encode` then takes texts. It is copied, never changed.
    max_length : int, optional
        Tokens per text, special ones included; longer texts are cut. By default what the tokenizer
        file says. A length that is written into the model is never exceeded.
    pooling : {'mean', 'max', 'cls'}, optional
        How an output of shape (n, tokens, dim) becomes (n, dim): the mean or the maximum over the
        tokens that are no padding, in float32, or the first of them. A row without any token is
        zero. None for models that give one vector per row.
    normalise : bool, default=False
        Divide every vector by its Euclidean norm; a zero vector stays zero.
    dtype : {'float32', 'float16'}, default='float32'
        Type of the result. Everything is computed in float32 after the model, and rounded once.
    nan_policy : {'raise', 'propagate'}, default='raise'
        What to do about a NaN or infinity in the result.
    num_threads : int, default=0
        Threads of the session, ONNX Runtime's ``intra_op_num_threads``. 0 is RECFUSE_NUM_THREADS,
        else the CPUs that this process may use. Idle threads sleep.
    cuda_graph : bool, default=False
        On CUDA, run the model as a CUDA graph, captured anew for each of the first 64 shapes of its
        inputs: for small batches, whose kernels take longer to launch than to run. All of the model
        must run on CUDA, without control flow; calls wait for one another.
    cache : str or path-like, optional
        A folder that keeps results: the same model, options and inputs are then read, not computed.

    Attributes
    ----------
    input_names : tuple of str
    output_name : str
    dim : int or None
        Length of the vectors. Where the model leaves it open, that of the last ones; None before.
    device : {'cpu', 'cuda'}
        Where the session runs.
    providers : tuple of str
        The session's execution providers, most wanted first.

    Raises
    ------
    ImportError
        If onnxruntime, or with `tokenizer` the package tokenizers, is not installed.
    FileNotFoundError
        If `path_or_bytes` or `tokenizer` is a path without a file.
    FormatError
        If the model or the tokenizer cannot be read, is damaged, needs a newer onnxruntime, or
        names external data that is missing or outside its folder.
    DeviceError
        If `device` is 'cuda' and the session does not run there; the message says why.
    ValueError, TypeError
        If an option has a wrong value or type, `output` is needed or unknown, or `pooling` does
        not suit the output.

    Notes
    -----
    Texts are sorted by their number of tokens so that batches pad little, and returned in their own
    order. A model without an ``attention_mask`` cannot tell padding from text, so for it only texts
    of equal length share a batch. On one device the result depends on `batch_size` by rounding
    only: within 1e-5 of the largest absolute value for float32 models. The exception are models
    that quantise their activations while they run: their scale is that of the whole batch.
    On CUDA, ONNX Runtime may multiply float32 matrices in TF32.

    Examples
    --------
    >>> import onnx.parser
    >>> from recfuse.serving import OnnxEncoder
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     doubled (float[n, 2] x) => (float[n, 2] y) { y = Add(x, x) }''')
    >>> encoder = OnnxEncoder(model.SerializeToString(), device="cpu")
    >>> encoder
    OnnxEncoder(x -> y, dim=2, device='cpu')
    >>> encoder.encode([[1, 2], [3, 4], [5, 6]])
    array([[ 2.,  4.],
           [ 6.,  8.],
           [10., 12.]], dtype=float32)
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 256,
        output: str | None = None,
        tokenizer: Any = None,
        max_length: int | None = None,
        pooling: Pooling | None = None,
        normalise: bool = False,
        dtype: Literal["float32", "float16"] = "float32",
        nan_policy: Literal["raise", "propagate"] = "raise",
        num_threads: int = 0,
        cuda_graph: bool = False,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        check_choice("pooling", pooling, ("mean", "max", "cls", None))
        check_choice("dtype", dtype, ("float32", "float16"))
        check_choice("nan_policy", nan_policy, ("raise", "propagate"))
        check_count("batch_size", batch_size, 1)
        check_count("num_threads", num_threads, 0)
        if max_length is not None:
            check_count("max_length", max_length, 1)
        self._model = model_source(path_or_bytes)
        self._batch_size = int(batch_size)
        self._max_length = max_length
        self._pooling = pooling
        self._normalise = bool(normalise)
        self._dtype = np.dtype(dtype)
        self._nan_policy = nan_policy
        self._num_threads = int(num_threads)
        self._wanted = resolve_device(device)
        self._cuda_graph = bool(cuda_graph)
        self._wanted_output = output
        self._open()
        self._inputs = tensor_specs(self._session.get_inputs())
        if not self._inputs:
            raise ValueError("OnnxEncoder: path_or_bytes must be a model with an input; got none")
        for spec in [*self._inputs, self._output]:
            if spec.dtype is None:
                raise TypeError(
                    f"OnnxEncoder: path_or_bytes must have tensors that NumPy can hold; "
                    f"got {spec.name!r} of type {spec.type}"
                )
        self._dim = self._stated_dim = stated_dim(self._output, pooling)
        self._tokens = (
            None if tokenizer is None else text_input(tokenizer, self._inputs, max_length)
        )
        self._cache = None if cache is None else VectorCache(cache, self._parts("cache"))

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._inputs)

    @property
    def output_name(self) -> str:
        return self._output.name

    @property
    def dim(self) -> int | None:
        return self._dim

    @property
    def device(self) -> str:
        return device_of(self._session)

    @property
    def keeps_on_device(self) -> bool:
        """Whether `encode_on_device` leaves vectors on a GPU, whatever the number of rows."""
        plain = self._cache is None and self._dtype == np.float32
        return self.device == "cuda" and plain and static_rows(self._inputs) is None

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(self._session.get_providers())

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vector of an input: model, options, device, version."""
        return VectorCache("", self._parts("fingerprint")).encoder

    def __repr__(self) -> str:
        names = ", ".join(self.input_names)
        return f"OnnxEncoder({names} -> {self.output_name}, dim={self.dim}, device={self.device!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out: it is opened anew where the encoder is loaded."""
        opened = ("_session", "_placed", "_graphs")
        return {key: value for key, value in vars(self).items() if key not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        """Open the session, and what belongs to it alone."""
        options = {"cuda_graph": self._cuda_graph}
        self._session = open_session(self._model, self._wanted, self._num_threads, **options)
        if self._cuda_graph and self.device != "cuda":
            raise ValueError(
                f"OnnxEncoder: cuda_graph must be False on device {self.device!r}; got True"
            )
        self._output = choose_output(tensor_specs(self._session.get_outputs()), self._wanted_output)
        graphs = Captured(self._session, self._output.name) if self._cuda_graph else None
        self._graphs = graphs
        self._placed = Placed(self._session, self._num_threads, graphs)

    def encode(self, inputs: Any, *, show_progress: bool = False) -> NDArray[Any]:
        """Run the model over the inputs in batches.

        Parameters
        ----------
        inputs : array-like, mapping of str to array-like, or list of str
            One row per item along the first axis. An array for a model with one input, else a
            mapping with an array for every input. Integers and floats are converted to the type
            of the input, floats never to integers; only the batch at hand is copied. Texts if the
            encoder has a tokenizer. With `pooling`, a mapping may have an ``attention_mask`` of
            shape (n, tokens), 0 at padding, also where the model does not take one; without a mask
            every token counts.
        show_progress : bool, default=False
            Show a bar on standard error (extra ``recfuse[progress]``).

        Returns
        -------
        ndarray of shape (n, dim), float32 or float16
            Row i belongs to input i. (0, dim) for no rows.

        Raises
        ------
        ValueError
            If names, number of dimensions, shapes or numbers of rows do not suit the model, if the
            model itself refuses a batch, or if a value of the result is not finite.
        TypeError
            If an input cannot be converted to the type that the model takes, or is no text.
        MemoryError
            If a batch does not fit.
        DeviceError
            If a CUDA call fails.
        FormatError
            If a file in `cache` is damaged.
        """
        batches = self._batches(inputs)
        if self._cache is None:
            vectors = self._encode(batches, show_progress)
        else:
            path = self._cache.path(batches.contents())
            stored = self._cache.load(path)
            vectors = self._encode(batches, show_progress) if stored is None else stored
            if stored is None:
                self._cache.store(path, vectors)
        self._dim = vectors.shape[1]
        return vectors

    def encode_on_device(self, inputs: Any) -> Any:
        """Run the model over the inputs, and leave the vectors where the session runs.

        With ``device='cuda'`` they never come to the host: `FusedIndex` takes them as they are, as
        does whatever speaks DLPack (``torch.from_dlpack``). Pooling and `normalise` are a graph of
        ONNX of their own there; it adds up float32 in another order than `encode` does.

        Parameters
        ----------
        inputs
            As in `encode`.

        Returns
        -------
        onnxruntime.OrtValue of shape (n, dim), float32
            Complete: there is no stream to be waited for. What is not finite stays: a search does
            not rank it.

        Raises
        ------
        ValueError, TypeError, MemoryError, DeviceError
            As `encode`; ValueError, too, if the encoder has a `cache` or another `dtype`, or if the
            rows do not fill the batches of a model that has a batch size of its own.
        """
        if self._cache is not None or self._dtype != np.float32:
            option = "dtype must be 'float32'" if self._cache is None else "cache must be None"
            raise ValueError(
                f"encode_on_device: {option} for vectors that stay where they are; "
                f"got {self._dtype if self._cache is None else 'a folder'}"
            )
        batches = self._batches(inputs, in_order=True)
        if batches.n_rows == 0:
            return self._placed.put(self._encode(batches, False))
        return self._placed.vectors(batches, self._output, self._pooling, self._normalise)

    def _encode(self, batches: ArrayBatches | TextBatches, show_progress: bool) -> NDArray[Any]:
        vectors = None
        if self._stated_dim is not None:
            vectors = np.empty((batches.n_rows, self._stated_dim), self._dtype)
        elif batches.n_rows == 0:
            vectors = self._vectors(batches.probe())[:0]
        for batch in progress(
            batches, description="encode", total=len(batches), enabled=show_progress
        ):
            rows = self._finite(self._vectors(batch), batch)
            if vectors is None:
                vectors = np.empty((batches.n_rows, rows.shape[1]), self._dtype)
            if rows.shape[1] != vectors.shape[1]:
                raise ValueError(
                    f"encode: output {self._output.name!r} must have {vectors.shape[1]} columns "
                    f"in every batch; got {rows.shape[1]}"
                )
            vectors[batch.rows] = rows
        assert vectors is not None
        return vectors

    def _vectors(self, batch: Batch) -> NDArray[Any]:
        """Run one batch: pooled, normalised, in the result's dtype."""
        hidden = self._run(batch)
        expected = len(next(iter(batch.feeds.values())))
        if hidden.ndim == 0 or len(hidden) != expected:
            raise ValueError(
                f"encode: output {self._output.name!r} must have one row per row of the inputs; "
                f"got shape {hidden.shape} for {expected} rows"
            )
        vectors = pooled(hidden[: batch.n_rows], batch.mask, self._pooling, self._output.name)
        if self._normalise:
            vectors = normalised(vectors)
        with np.errstate(over="ignore"):  # `_finite` tells about what float16 cannot hold
            return vectors.astype(self._dtype, copy=False)

    def _run(self, batch: Batch) -> NDArray[Any]:
        if self._graphs is None:
            return run(self._session, self._output.name, batch.feeds)
        with self._graphs.run(batch.feeds) as value:
            return np.asarray(value.numpy())

    def _finite(self, vectors: NDArray[Any], batch: Batch) -> NDArray[Any]:
        if self._nan_policy == "raise" and not np.isfinite(vectors).all():
            wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            rows = batch.rows
            row = int(wrong[0] + rows.start if isinstance(rows, slice) else rows[wrong[0]])
            raise ValueError(
                f"encode: output {self._output.name!r} must be finite in {self._dtype}; "
                f"got NaN or infinity in row {row}. nan_policy='propagate' keeps it."
            )
        return vectors

    def _batches(self, inputs: Any, *, in_order: bool = False) -> ArrayBatches | TextBatches:
        numbers = isinstance(inputs, np.ndarray) and inputs.dtype.kind not in "OUT"
        if self._tokens is None or isinstance(inputs, Mapping) or numbers:
            if self._tokens is None and is_texts(inputs) and self._inputs[0].dtype != object:
                raise TypeError(
                    "encode: inputs must be arrays for an encoder without a tokenizer; "
                    "got texts. Pass tokenizer= to OnnxEncoder."
                )
            masked = self._pooling is not None
            return ArrayBatches(inputs, self._inputs, self._batch_size, masked=masked)
        return TextBatches(inputs, self._tokens, self._inputs, self._batch_size, in_order=in_order)

    def _parts(self, purpose: str) -> list[bytes]:
        """Return what decides the vectors."""
        model = self._whole_model(f"{purpose} must be None")
        options = (
            load_runtime().__version__,
            self.device,
            self.output_name,
            self._pooling,
            self._normalise,
            self._dtype.str,
            self._nan_policy,
        )
        tokens = b"" if self._tokens is None else self._tokens.to_bytes()
        return [model, repr(options).encode(), tokens]

    def _file_parts(self) -> tuple[bytes, bytes | None, dict[str, Any]]:
        """Return model, tokenizer and options for a file; device and threads are the reader's."""
        options = {
            "batch_size": self._batch_size,
            "output": self.output_name,
            "max_length": self._max_length,
            "pooling": self._pooling,
            "normalise": self._normalise,
            "dtype": self._dtype.name,
            "nan_policy": self._nan_policy,
        }
        tokenizer = None if self._tokens is None else self._tokens.to_file()
        return self._whole_model("encoders must be left to load"), tokenizer, options

    def _whole_model(self, rule: str) -> bytes:
        model = self._model if isinstance(self._model, bytes) else Path(self._model).read_bytes()
        if external_data(model):
            raise ValueError(
                f"OnnxEncoder: {rule} for a model with external data; "
                "got one whose weights are in a second file"
            )
        return model
