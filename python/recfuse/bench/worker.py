"""A contender in a process of its own: its environment, its threads and its memory are its own.

The parent writes one JSON line per request and reads one per reply; arrays go through files.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from recfuse.bench.case import Answer, Case, Contender, Inputs
from recfuse.bench.cases import rebuild

__all__ = ["Worker", "WorkerError", "load_arrays", "save_arrays", "serve"]


class WorkerError(RuntimeError):
    """A contender failed; the message says how."""


def save_arrays(folder: Path, arrays: Inputs) -> None:
    """Write every array to a file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def load_arrays(folder: Path) -> Answer:
    """Read what `save_arrays` wrote into memory."""
    return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


class Worker:
    """The parent's end of a contender's process.

    Parameters
    ----------
    case, contender : Case, Contender
    inputs : Path
        Folder of the inputs, by `save_arrays`.
    num_threads : int
        For the contender, and for every library that takes it from the environment.
    timeout : float, default=1800
        Seconds that a reply may take.
    """

    def __init__(
        self,
        case: Case,
        contender: Contender,
        inputs: Path,
        num_threads: int,
        timeout: float = 1800.0,
    ) -> None:
        self._timeout = timeout
        self._log = (inputs.parent / f"{_file_name(contender.name)}.log").open("w+b")
        names = (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "RECFUSE_NUM_THREADS",
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from recfuse.bench.worker import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | dict.fromkeys(names, str(num_threads)) | dict(contender.environment),
        )
        self._answers = inputs.parent / f"{_file_name(contender.name)}.answer"
        self._request = {
            "op": case.op,
            "sizes": case.sizes(),
            "contender": contender.name,
            "inputs": str(inputs),
            "num_threads": num_threads,
        }

    def prepare(self) -> dict[str, Any]:
        """Load, prepare and call once (or as often as the case warms up).

        Returns ``prepare_seconds``, ``first_seconds`` (of the last of these calls) and
        ``extra_bytes``, the memory that all of it took at its peak beside inputs and libraries.
        """
        return self._ask(self._request)

    def answer(self) -> Answer:
        """Return what the latest call resulted in."""
        self._ask({"answer": str(self._answers)})
        return load_arrays(self._answers)

    def time(self, n_calls: int) -> tuple[float, float]:
        """Call; return the seconds of one by the clock and of the CPUs, medians of several."""
        reply = self._ask({"time": n_calls})
        return float(reply["seconds"]), float(reply["cpu_seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._obituary()) from None
        if not select.select([stdout], [], [], self._timeout)[0]:
            raise WorkerError(f"no reply within {self._timeout:.0f} s")
        line = stdout.readline()
        if not line:
            raise WorkerError(self._obituary())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def _obituary(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        return " ".join([f"its process ended with code {code}", *last])


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


class _Child:
    """The contender's end."""

    def __init__(self, request: dict[str, Any]) -> None:
        case = rebuild(request["op"], request["sizes"])
        contender = next(c for c in case.contenders() if c.name == request["contender"])
        __import__(contender.module)
        inputs = load_arrays(Path(request["inputs"]))
        before = _reset_peak_memory()
        start = time.perf_counter()
        self.ready = contender.prepare(case, inputs, request["num_threads"])
        prepared = time.perf_counter()
        for _ in range(case.warm_up_calls):
            first_seconds, _ = self.call()
        peak = _memory("VmHWM")
        self.description: dict[str, float | int | None] = {
            "prepare_seconds": prepared - start,
            "first_seconds": first_seconds,
            "extra_bytes": None if before is None or peak is None else peak - before,
        }

    def call(self) -> tuple[float, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        self.result = self.ready.call()
        return time.perf_counter() - start, time.process_time() - cpu_start

    def time(self, n_calls: int) -> dict[str, float]:
        if n_calls > 1:  # short calls: the first one after a pause finds cold caches
            self.call()
        samples = [self.call() for _ in range(n_calls)]
        seconds, cpu_seconds = (float(np.median(times)) for times in zip(*samples, strict=True))
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def _reset_peak_memory() -> int | None:
    """Start the peak anew and return the present size; None where Linux does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def _memory(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), None
    )


def serve() -> None:
    """Answer the parent's requests until it closes the pipe."""
    # Libraries print to standard output, which is the channel here: they get standard error.
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        child: _Child | None = None
        reply: dict[str, Any]
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if child is None:
                    child = _Child(request)
                    reply = child.description
                elif "time" in request:
                    reply = child.time(request["time"])
                else:
                    save_arrays(Path(request["answer"]), child.ready.answer(child.result))
                    reply = {}
            except Exception as error:  # whatever a peer raises is its result
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(reply), file=channel, flush=True)
