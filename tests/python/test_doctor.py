"""Why CUDA is off, as `doctor` tells it: modules that are not there, and drivers made up here.

Devices that cannot be used are tests/cpp/test_cuda_logic.cpp's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from recfuse import backend

# As much of a driver as CUDA's run time asks for before it looks for devices.
DRIVER = """
#include <string.h>
static int done(void) { return 0; }
int cuDriverGetVersion(int* version) { *version = FAKE_DRIVER; return 0; }
int cuInit(unsigned flags) { return FAKE_STATUS; }
int cuGetExportTable(const void** table, const void* id) { return 1; }
int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags,
                        int* status) {
  if (status) *status = 0;
  *function = (void*)done;
  if (!strcmp(name, "cuDriverGetVersion")) *function = (void*)cuDriverGetVersion;
  if (!strcmp(name, "cuInit")) *function = (void*)cuInit;
  if (!strcmp(name, "cuGetExportTable")) *function = (void*)cuGetExportTable;
  if (!strcmp(name, "cuGetProcAddress")) *function = (void*)cuGetProcAddress_v2;
  return 0;
}
int cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
"""
TELL = """
import json, recfuse
try:
    recfuse.topk([[1.0]], [[1.0]], 1, device="cuda")
except recfuse.errors.DeviceError as error:
    print(json.dumps([recfuse.doctor()["cuda"], str(error)]))
"""


@pytest.fixture
def reason_of(monkeypatch):
    """Return what `doctor` says where the CUDA module is called so."""

    def of(module):
        monkeypatch.setitem(backend._MODULES, "cuda", module)
        backend._load.cache_clear()
        return recfuse.doctor()["cuda"]["reason"]

    yield of
    backend._load.cache_clear()


def told_by(library_path, **variables):
    """Return what a process says of CUDA that finds its driver there."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_path), **variables}
    command = [sys.executable, "-c", TELL]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    cuda, refused = json.loads(done.stdout)
    assert cuda["usable"] is False
    assert refused == f"device 'cuda' cannot be used: {cuda['reason']}"
    return cuda["reason"]


@pytest.fixture
def built():
    pytest.importorskip("recfuse._cuda", reason="this build has no CUDA module")


def test_without_the_module(reason_of):
    reason = reason_of("recfuse._no_such_module")
    assert reason.startswith("this build of recfuse has no CUDA module: build it where nvcc is")


def test_a_module_that_does_not_load(reason_of, tmp_path, monkeypatch):
    broken = tmp_path / "cuda_that_lacks_a_library.py"
    broken.write_text("raise ImportError('libx.so.1: cannot open shared object file')", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    reason = reason_of(broken.stem)
    assert reason == f"{broken.stem} does not load: libx.so.1: cannot open shared object file"


def test_where_it_works(monkeypatch):
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        found = recfuse.doctor()["cuda"]
        assert (found["usable"], found["reason"]) == (True, None)
        assert [gpu["name"] for gpu in found["devices"]] == ["cuda:0"]


def test_without_a_driver(built, tmp_path):
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a driver here")
    reason = told_by(tmp_path)
    assert reason.startswith("there is no NVIDIA driver on this machine (install one for CUDA")


@pytest.mark.parametrize(
    ("driver", "status", "hidden", "words"),
    [
        (11040, 0, False, "the driver is made for CUDA 11.4, this build for"),
        (99000, 100, False, "the driver reports no CUDA device: nvidia-smi should list one"),
        (99000, 100, True, "the driver reports no CUDA device: CUDA_VISIBLE_DEVICES='' hides all"),
        (99000, 802, False, "CUDA does not start: system not yet initialized"),
        (99000, 803, False, "libcuda.so.1 is not of the running driver"),
        (99000, 999, False, "CUDA does not start: unknown error (cudaErrorUnknown)"),
    ],
)
def test_drivers_that_do_not_do(built, tmp_path, monkeypatch, driver, status, hidden, words):
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    source = Path(tmp_path) / "driver.c"
    source.write_text(DRIVER, encoding="utf-8")
    made = [compiler, "-shared", "-fPIC", f"-DFAKE_DRIVER={driver}", f"-DFAKE_STATUS={status}"]
    subprocess.run([*made, source, "-o", tmp_path / "libcuda.so.1"], check=True, timeout=120)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert words in told_by(tmp_path, **({"CUDA_VISIBLE_DEVICES": ""} if hidden else {}))
