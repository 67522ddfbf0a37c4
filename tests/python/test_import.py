"""What `import recfuse` brings into a process, and what it leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recfuse
from recfuse import _core


def run(code: str) -> str:
    """Run `code` in a fresh interpreter; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout


def test_import_brings_numpy_and_scipy_and_what_they_bring() -> None:
    """They import some packages of their own where those happen to be installed."""
    packages_of = (
        "from importlib.metadata import packages_distributions\n"
        "packages = packages_distributions()\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted({packages[name][0] for name in new & set(packages)} - {'recfuse'}))"
    )
    modules = run("import sys, recfuse; print(*sys.modules)").split()
    theirs = [name for name in modules if name.partition(".")[0] in ("numpy", "scipy")]
    alone = run(
        "import importlib, sys; before = set(sys.modules)\n"
        f"for name in {theirs}: importlib.import_module(name)\n{packages_of}"
    )
    with_ours = run(f"import sys; before = set(sys.modules)\nimport recfuse\n{packages_of}")
    assert with_ours == alone
    assert {"numpy", "scipy"} <= set(with_ours.split())


def test_import_leaves_the_cuda_module_alone() -> None:
    assert run("import sys, recfuse; print('recfuse._cuda' in sys.modules)") == "False\n"


def test_import_and_use_print_nothing() -> None:
    assert run("import recfuse; recfuse.topk([[1.0]], [[1.0]], 1)") == ""


def test_every_public_name_is_there() -> None:
    for name in recfuse.__all__:
        assert getattr(recfuse, name) is not None
    assert set(recfuse.__all__) <= set(dir(recfuse))


@pytest.mark.parametrize(
    "name", [b"libgomp", b"libomp", b"libiomp", b"GOMP_", b"__kmpc_", b"omp_get"]
)
def test_the_extension_has_no_openmp(name: bytes) -> None:
    assert name not in Path(_core.__file__).read_bytes()


def test_a_wrong_isa_says_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECFUSE_ISA", "mmx")
    said = run(
        "import recfuse\n"
        "try:\n"
        "    recfuse.topk([[1.0]], [[1.0]], 1)\n"
        "except ValueError as error:\n"
        "    print(error)"
    )
    assert said.startswith("RECFUSE_ISA must be one of those that this CPU runs (")
    assert said.endswith("baseline); got 'mmx'\n")


def test_the_isa_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in _core.available_isas():
        monkeypatch.setenv("RECFUSE_ISA", isa)
        assert run("import recfuse; print(recfuse.doctor()['isa']['active'])") == f"{isa}\n"
