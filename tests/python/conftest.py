"""Fixtures: a generator with a fixed seed, every instruction set, one and two threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from recfuse import _core, backend

hypothesis.settings.register_profile(
    "recfuse",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("recfuse")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once per instruction set that this CPU has."""
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


# The GPU; and its kernels on the CPU, as `make build-cpp` builds them.
CUDA_MODULES = {"cuda": "recfuse._cuda", "emulator": "_cuda_emulated"}
sys.path.append(str(Path(__file__).parents[2] / "build" / "cpp" / "bindings"))


def run_on_cuda(module: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let 'auto' stand for a GPU, or the emulator of one; skip the test where there is none.

    RECFUSE_TEST_GPUS=cuda:0,0 has it stand for one that holds every index in two ranges.
    """
    monkeypatch.setenv("RECFUSE_DEVICE", os.environ.get("RECFUSE_TEST_GPUS", "cuda"))
    monkeypatch.setitem(backend._MODULES, "cuda", module)
    backend._load.cache_clear()
    usable = backend._load("cuda")
    if isinstance(usable, str):
        backend._load.cache_clear()
        pytest.skip(f"no CUDA: {usable}")
    yield
    backend._load.cache_clear()


@pytest.fixture(
    params=[
        *((isa, "float32") for isa in _core.available_isas()),
        *((isa, screen) for isa in ("avx2", "avx512_vnni") for screen in ("int8", "int16")),
        ("cuda", "float16"),
        ("emulator", "float16"),
    ],
    ids="-".join,
)
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test once per screen, and per instruction set or device that has it.

    The answer is the same.
    """
    where, name = request.param
    if where in CUDA_MODULES:
        for _ in run_on_cuda(CUDA_MODULES[where], monkeypatch):
            yield name
        return
    if where not in _core.available_isas():
        pytest.skip(f"this CPU has no {where}")
    monkeypatch.setenv("RECFUSE_SCREEN", name)
    before = _core.active_isa()
    _core.set_isa(where)
    yield name
    _core.set_isa(before)


SPARSE_LIMITS = {
    "strips": {
        "strip_ids": 7, "shared_keys": 1024, "keys_bytes": 50_000, "heavy_work": 40, "shares": 1000
    },
    # Rows with more than 192 additions, of which some tests have many, are left to strips.
    "tables": {"table_ids": 0, "table_places": 256, "ids_per_addition": 0},
    # Counts, not above 127, of all columns are multiplied.
    "products": {"ids_per_entry": 1 << 30, "products_per_addition": 1 << 40, "least_gain": 0},
}  # fmt: skip


@pytest.fixture(params=["cpu", "cuda", "emulator", *(f"emulator-{name}" for name in SPARSE_LIMITS)])
def sparse_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let 'auto' stand for the CPU, a GPU, and the emulator of one: for sparse similarity.

    In strips, rows are cut as those of many thousands are, and blocks share them. In tables, the
    sums of rows are kept as those of few additions to many ids are. With products, columns are
    added up as dense ones are.
    """
    name, _, limits = request.param.partition("-")
    if name == "cpu":
        yield name
        return
    for _ in run_on_cuda(CUDA_MODULES[name], monkeypatch):
        if not limits:
            yield name
            continue
        emulator = backend.resolve_backend("cuda").ops
        emulator.set_sparse_limits(**SPARSE_LIMITS[limits])
        yield name
        emulator.set_sparse_limits()


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("RECFUSE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}; set RECFUSE_DATA")
    return folder
