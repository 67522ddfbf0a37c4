"""What the library does to the process around it: forks, threads, the GIL, the environment."""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import recfuse
from helpers import assert_same_bytes, normal
from recfuse import _core


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, with these variables added to the environment."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SEARCH = """
    import os, sys, numpy as np, recfuse
    rng = np.random.default_rng(0)
    queries, items = rng.random((300, 8)), rng.random((4000, 8))
    def search():
        return recfuse.topk(queries, items, 5, num_threads=4)[0].tobytes()
    before = search()
"""


def test_a_forked_child_searches_like_its_parent():
    done = run_python(
        SEARCH
        + """
    child = os.fork()
    if child == 0:
        os._exit(0 if search() == before else 1)
    _, status = os.waitpid(child, 0)
    assert search() == before
    sys.exit(os.waitstatus_to_exitcode(status))
    """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            SEARCH
            + f"""
    import multiprocessing
    if __name__ == "__main__":
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            assert pool.apply(search) == before
    """
        )
    )
    command = [sys.executable, "-W", "ignore", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_concurrent_searches(rng):
    items = normal(rng, 3000, 16)
    index = recfuse.FusedIndex({"a": items}, metric="dot", num_threads=2)
    batches = [normal(rng, n, 16) for n in (1, 3, 40, 200) * 6]
    expected = [index.topk({"a": q}, 9) for q in batches]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got, wanted in zip(
            pool.map(lambda q: index.topk({"a": q}, 9), batches), expected, strict=True
        ):
            assert_same_bytes(got, wanted)


def test_other_threads_run_during_a_search(rng):
    items, queries = normal(rng, 60_000, 64), normal(rng, 400, 64)
    ticks, stop = [], threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(None)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        recfuse.topk(queries, items, 5, num_threads=1)
    finally:
        stop.set()
        thread.join()
    assert len(ticks) > 3


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RECFUSE_ISA", "sse9", "RECFUSE_ISA must be one of those that this CPU runs"),
        ("RECFUSE_NUM_THREADS", "many", "RECFUSE_NUM_THREADS must be an integer of at least 0"),
        ("RECFUSE_DEVICE", "gpu", "device must be 'auto', 'cpu', 'cuda', or 'cuda:'"),
    ],
)
def test_a_wrong_variable_is_an_error(variable, value, message):
    done = run_python("import recfuse; recfuse.topk([[1.0]], [[1.0]], 1)", **{variable: value})
    assert done.returncode == 1
    assert "ValueError" in done.stderr and message in done.stderr


def test_variables_choose():
    code = "from recfuse import _core; print(_core.active_isa(), _core.default_num_threads())"
    done = run_python(code, RECFUSE_ISA="baseline", RECFUSE_NUM_THREADS="3")
    assert done.stdout.split() == ["baseline", "3"], done.stderr


def test_an_affinity_mask_is_honoured():
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from recfuse import _core
        print(_core.default_num_threads())
    """
    done = run_python(code, RECFUSE_NUM_THREADS="")
    assert done.stdout.strip() == "1", done.stderr


def test_very_many_threads_are_capped(rng):
    queries, items = normal(rng, 50, 8), normal(rng, 500, 8)
    got = recfuse.topk(queries, items, 5, num_threads=10**6)
    assert_same_bytes(got, recfuse.topk(queries, items, 5, num_threads=1))


def test_setting_the_default_number_of_threads():
    before = _core.default_num_threads()
    _core.set_default_num_threads(3)
    assert _core.default_num_threads() == 3
    _core.set_default_num_threads(0)
    assert _core.default_num_threads() == before
    with pytest.raises(ValueError, match="num_threads must be at least 0; got -1"):
        _core.set_default_num_threads(-1)


def test_importing_brings_no_extra():
    code = """
        import sys, recfuse
        extras = {"onnxruntime", "sklearn", "pandas", "polars", "matplotlib", "tqdm", "tokenizers"}
        print(*sorted(extras & set(sys.modules)), *(m for m in sys.modules if m.endswith("._cuda")))
    """
    done = run_python(code)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_cuda_is_refused_with_the_reason():
    reason = recfuse.doctor()["cuda"]["reason"]
    if reason is None:
        pytest.skip("CUDA works here")
    with pytest.raises(recfuse.errors.DeviceError, match=re.escape(reason)):
        recfuse.topk([[1.0]], [[1.0]], 1, device="cuda")


def test_a_large_allocation_is_a_memory_error():
    with pytest.raises(MemoryError):
        recfuse.topk(np.ones((10**6, 1)), np.ones((1, 1)), 2**31 - 1)
