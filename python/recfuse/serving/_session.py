"""ONNX Runtime sessions: opened on the device that was asked for, or refused with the reason."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import DeviceError, FormatError

__all__ = [
    "cuda_obstacle",
    "device_of",
    "external_data",
    "load_runtime",
    "model_source",
    "open_session",
    "run",
    "run_bound",
    "run_in_place",
    "run_into",
    "thread_count",
    "told",
]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# How protobuf spells the first entry of an initializer that lives in another file:
# StringStringEntryProto(key="location", value=...), a value of up to 127 or 16383 bytes.
_EXTERNAL_DATA = re.compile(rb"\n\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])")
_CUDA_FAILURE = re.compile(r"(CUDA|CUDNN|CUBLAS) failure \d+: [^;]*")


def load_runtime(module: str = "onnxruntime") -> Any:
    """Import a package of the extra `onnx`; ImportError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"OnnxEncoder needs {module}: pip install 'recfuse[onnx]', "
            "or 'recfuse[onnx-gpu]' for CUDA"
        ) from error


def thread_count(num_threads: int) -> int:
    """Return the threads to use; 0 is RECFUSE_NUM_THREADS, else the CPUs of this process."""
    if num_threads:
        return num_threads
    wanted = os.environ.get("RECFUSE_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if wanted:
        raise ValueError(f"RECFUSE_NUM_THREADS must be a positive integer; got {wanted!r}")
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model_source(path_or_bytes: Any) -> str | bytes:
    """Return the path of an existing file, or the bytes of a model that is complete in itself."""
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        model = bytes(path_or_bytes)
        if external_data(model):
            # ONNX Runtime would look for the other file in the working directory.
            raise FormatError(
                "OnnxEncoder: path_or_bytes must be a path for a model with external data; "
                "got bytes. Save the model into one file or pass its path."
            )
        return model
    if not isinstance(path_or_bytes, (str, os.PathLike)):
        kind = type(path_or_bytes).__name__
        raise TypeError(f"OnnxEncoder: path_or_bytes must be a path or bytes; got {kind}")
    path = Path(path_or_bytes)
    if not path.is_file():
        raise FileNotFoundError(
            f"OnnxEncoder: path_or_bytes must be an existing file; got {str(path)!r}"
        )
    _check_external_data(path)
    return os.fspath(path)


def _check_external_data(path: Path) -> None:
    """Refuse a model that reads files outside its folder; older ONNX Runtimes do not."""
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model,
    ):
        locations = external_data(model)
    for location in locations:
        # By name only: in the caches of model hubs, links lead outside.
        inside = Path(os.path.normpath(location))
        if inside.is_absolute() or inside.parts[:1] == (os.pardir,):
            raise FormatError(
                "OnnxEncoder: path_or_bytes must have its external data in its own folder; "
                f"got {str(path)!r} with {location!r}"
            )


def external_data(model: bytes | mmap.mmap) -> set[str]:
    """Return the files outside the model that hold its initializers, as the model names them."""
    locations = set()
    for match in _EXTERNAL_DATA.finditer(model):
        low, *high = match.group(1)
        length = (low & 0x7F) + (high[0] << 7 if high else 0)
        locations.add(model[match.end() : match.end() + length].decode(errors="replace"))
    return locations


def cuda_obstacle(ort: Any) -> str | None:
    """Return why this ONNX Runtime cannot load its CUDA provider, or None if it can.

    `get_available_providers` only tells what was built, and a session that fails to load the
    provider logs to standard error and runs on the CPU, so the library is loaded here first.
    """
    if CUDA not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} is a build without {CUDA}"
    library = Path(ort.capi.__file__).parent / "libonnxruntime_providers_cuda.so"
    if not library.exists():
        return None
    reason = _load_error(library)
    if reason and hasattr(ort, "preload_dlls"):
        # CUDA that came as pip wheels is on no search path; what fails to load is printed.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
        reason = _load_error(library)
    return reason


def _load_error(library: Path) -> str | None:
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None


def open_session(
    model: str | bytes, device: str, num_threads: int, *, cuda_graph: bool = False
) -> Any:
    """Open a session whose first provider is the one of `device`; 'auto' takes CUDA if it works.

    With `cuda_graph`, a session on CUDA captures its runs.

    Raises DeviceError where 'cuda' cannot be had and FormatError where the model cannot be loaded.
    """
    ort = load_runtime()
    if device == "cpu":
        return _session(ort, model, [CPU], num_threads)
    reason = cuda_obstacle(ort)
    if reason is None:
        try:
            first = (CUDA, {"enable_cuda_graph": "1"}) if cuda_graph else CUDA
            session = _session(ort, model, [first, CPU], num_threads)
        except DeviceError as error:
            reason = str(error)
        else:
            if session.get_providers()[0] == CUDA:
                return session
            reason = f"the session runs on {', '.join(session.get_providers())}"
    if device == "auto":
        return _session(ort, model, [CPU], num_threads)
    raise DeviceError(
        f"OnnxEncoder: device must be 'cpu' or 'auto' on this machine; got 'cuda': {reason}. "
        f"{_remedy(reason)}"
    )


def _remedy(reason: str) -> str:
    if "build without" in reason:
        return "Put onnxruntime-gpu in the place of onnxruntime: pip install 'recfuse[onnx-gpu]'."
    if "libcuda.so" in reason or "driver" in reason:
        return "Install an NVIDIA driver on a machine with a GPU."
    return "Install the CUDA libraries: pip install 'onnxruntime-gpu[cuda,cudnn]'."


def _session(ort: Any, model: str | bytes, providers: list[Any], num_threads: int) -> Any:
    options = ort.SessionOptions()
    # The default of 0 would pin threads to cores, also to cores outside this process's mask.
    options.intra_op_num_threads = thread_count(num_threads)
    options.inter_op_num_threads = 1
    # Idle threads that spin would take the cores from the kernels that run next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # every error also arrives as an exception
    state = ort.capi.onnxruntime_pybind11_state
    try:
        # With its fallback on, a failing CUDA call would print a line and go on on the CPU.
        return ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except (state.EPFail, RuntimeError) as error:  # RuntimeError: a provider's constructor
        raise DeviceError(_detail(error)) from error
    except _runtime_errors(state) as error:
        what = "bytes" if isinstance(model, bytes) else repr(model)
        raise FormatError(
            f"OnnxEncoder: path_or_bytes must be a model that onnxruntime {ort.__version__} "
            f"can load; got {what}: {_detail(error)}"
        ) from error


def run(session: Any, output: str, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Run one batch and return its output in host memory; errors are those of `encode`."""
    with told(session, feeds):
        if device_of(session) == "cuda":
            return run_bound(session, output, feeds, "cuda")
        return np.asarray(session.run([output], dict(feeds))[0])


def device_of(session: Any) -> str:
    """Return where a session runs: 'cuda' or 'cpu'."""
    return "cuda" if session.get_providers()[0] == CUDA else "cpu"


@contextlib.contextmanager
def told(session: Any, feeds: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors of ONNX Runtime into those of `encode`."""
    state = load_runtime().capi.onnxruntime_pybind11_state
    # RuntimeError: with bound inputs.
    failures: tuple[type[Exception], ...] = (*_runtime_errors(state), RuntimeError)
    try:
        yield
    except state.InvalidArgument as error:
        raise ValueError(_rejected(feeds, error)) from error
    except failures as error:
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            raise MemoryError(
                f"encode: a batch of {_n_rows(feeds)} rows does not fit: {_detail(error)}. "
                "Lower batch_size."
            ) from error
        if _CUDA_FAILURE.search(str(error)):
            raise DeviceError(f"encode: {_detail(error)}") from error
        raise ValueError(_rejected(feeds, error)) from error


def run_bound(
    session: Any, output: str, feeds: Mapping[str, NDArray[Any]], device: str
) -> NDArray[Any]:
    """Run one batch with the output bound on `device`, and copy that one output to the host."""
    return np.asarray(_run_bound(session, output, feeds, device).copy_outputs_to_cpu()[0])


def run_in_place(session: Any, output: str, feeds: Mapping[str, Any], options: Any = None) -> Any:
    """Run one batch and return its output as an OrtValue where the session runs, ready to be read.

    What is fed may be an OrtValue there, too.
    """
    with told(session, feeds):
        binding = _run_bound(session, output, feeds, device_of(session), options=options)
        return binding.get_outputs()[0]


def run_into(
    session: Any, output: str, feeds: Mapping[str, Any], shape: tuple[int, int], address: int
) -> None:
    """Run one batch whose output, float32 of this shape, goes to memory where the session runs."""
    with told(session, feeds):
        where = (device_of(session), 0, np.float32, list(shape), address)
        _run_bound(session, output, feeds, *where)


def _run_bound(
    session: Any, output: str, feeds: Mapping[str, Any], *where: Any, options: Any = None
) -> Any:
    """Run one batch with bound inputs and output; return the binding when the output is complete.

    Inputs are bound as host arrays: ONNX Runtime copies them on the stream that it computes on,
    so no stream has to be waited for here. Other outputs of the model are never copied.
    """
    binding = session.io_binding()
    for name, array in feeds.items():
        if isinstance(array, np.ndarray):
            binding.bind_cpu_input(name, array)
        else:
            binding.bind_ortvalue_input(name, array)
    binding.bind_output(output, *where)
    session.run_with_iobinding(binding, options)
    binding.synchronize_outputs()
    return binding


def _runtime_errors(state: Any) -> tuple[type[Exception], ...]:
    names = ("Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException")
    more = ("InvalidProtobuf", "NotImplemented", "InvalidGraph", "EPFail")
    return tuple(getattr(state, name) for name in names + more)


def _rejected(feeds: Mapping[str, Any], error: Exception) -> str:
    arrays = {name: array for name, array in feeds.items() if isinstance(array, np.ndarray)}
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    return f"encode: inputs must suit the model; got a batch of {shapes}: {_detail(error)}"


def _n_rows(feeds: Mapping[str, Any]) -> int:
    arrays = (array for array in feeds.values() if isinstance(array, np.ndarray))
    return max((len(array) for array in arrays if array.ndim), default=0)


def _detail(error: Exception) -> str:
    """Return the sentence inside an error of ONNX Runtime, without its source paths."""
    text = str(error)
    cuda = _CUDA_FAILURE.search(text)
    if cuda:
        return cuda.group().strip()
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/onnxruntime_src/.*?\) (?=[A-Z!])", "", text)
    return " ".join(text.split())[:400].rstrip(".")
