"""The checks of tests/tools see what they are there for."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def load(name: str, folder: Path = TOOLS) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


check_layers = load("check_layers")
check_isa_symbols = load("check_isa_symbols")


def write(root: Path, name: str, text: str) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    return file


def test_this_tree_keeps_its_layers() -> None:
    assert check_layers.violations(TOOLS.parents[1]) == []


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("cpp/include/recfuse/a.hpp", '#include "ops/a.hpp"', 'may not include "ops/a.hpp"'),
        ("cpp/include/recfuse/a.hpp", "#include <pybind11/stl.h>", "only bindings/ may include"),
        ("cpp/src/kernels/a.inl.hpp", "#include <vector>", "a kernel may not include <vector>"),
        ("cpp/src/kernels/a.inl.hpp", '#include "recfuse/fuse_topk.hpp"', "may not include"),
        ("cpp/src/isa/avx2.cpp", "  # include <thread>", "have threads, and none of OpenMP"),
        ("cpp/src/ops/a.cpp", '#include "kernels/a.inl.hpp"', "may not include"),
        ("cpp/src/ops/a.cpp", "#pragma omp parallel for", "no OpenMP but `omp simd`"),
        ("cpp/src/elsewhere/a.cpp", "", "belongs to no layer"),
        ("bindings/ops/a.hpp", '#include "validate.hpp"', 'may not include "validate.hpp"'),
        ("cuda/src/a.cuh", '#include "ops/search.hpp"', "may not include"),
        ("cuda/src/a.cuh", "#include <cuda_runtime.h>", "only cuda/src/device.cuh and"),
        ("python/recfuse/a.py", "import pandas", "pandas is no run-time dependency"),
        ("python/recfuse/a.py", "from recfuse.models import als", "ground floor may not use"),
        ("python/recfuse/a.py", "from recfuse import _core", "only backend.py loads"),
        ("python/recfuse/a.py", "from . import b", "imports are absolute"),
        ("python/recfuse/models/a.py", "from recfuse.serving.b import c", "'models' may not use"),
        ("python/recfuse/models/a.py", "def f():\n    import recfuse.fusion.b", "may not use"),
        ("python/recfuse/elsewhere/a.py", "", "is none of those"),
    ],
)
def test_a_broken_layer_is_seen(tmp_path: Path, name: str, line: str, problem: str) -> None:
    write(tmp_path, name, line)
    (found,) = check_layers.violations(tmp_path)
    assert found.startswith(f"{name}:")
    assert problem in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cpp/src/parallel_for.cpp", "#include <thread>"),
        ("cpp/src/kernels/a.inl.hpp", "#pragma omp simd reduction(+ : sum)"),
        ("python/recfuse/a.py", "def f():\n    import pandas"),
        ("python/recfuse/a.py", "if TYPE_CHECKING:\n    import pandas"),
        ("python/recfuse/cli.py", "def f():\n    from recfuse.models.als import fit"),
        ("python/recfuse/fusion/a.py", "from recfuse.models.als import fit"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)
    assert check_layers.violations(tmp_path) == []


def compiled(root: Path, name: str, text: str, *flags: str) -> Path:
    """Compile `text` into an object where a build has that of ``name``.cpp."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs a compiler and binutils")
    source = write(root, f"{name}.cpp", text)
    target = source.with_name(source.name + ".o")
    subprocess.run([compiler, "-c", *flags, "-o", target, source], check=True)
    write(root, "build.ninja", "FLAGS = -O3 -fopenmp-simd -mavx2")
    return target


TABLE = "namespace recfuse::kernels::avx2 { extern const int table; const int table = 1; }"


def test_a_unit_with_its_table_alone_passes(tmp_path: Path) -> None:
    compiled(tmp_path, "isa/avx2", "static int f() { return 2; }" + TABLE.replace("= 1", "= f()"))
    compiled(tmp_path, "isa/dispatch", "int anything() { return 1; }")
    assert check_isa_symbols.problems(tmp_path) == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("inline int shared() { return 1; } int (*p)() = shared;", "shared() is weak"),
        ("int other() { return 1; }", "must export"),
    ],
)
def test_what_a_unit_exports_beside_its_table_is_seen(
    tmp_path: Path, extra: str, problem: str
) -> None:
    compiled(tmp_path, "isa/avx2", TABLE + extra)
    assert problem in "\n".join(check_isa_symbols.problems(tmp_path))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86")
def test_wide_instructions_outside_a_unit_are_seen(tmp_path: Path) -> None:
    compiled(tmp_path, "isa/avx2", TABLE)
    compiled(tmp_path, "ops/a", "float f(float a, float b) { return a * b; }", "-mavx2")
    (found,) = check_isa_symbols.problems(tmp_path)
    assert "f(float, float) is not baseline code" in found


def test_flags_of_this_machine_are_seen(tmp_path: Path) -> None:
    compiled(tmp_path, "isa/avx2", TABLE)
    write(tmp_path, "build.ninja", "FLAGS = -O3 -march=native -fopenmp -ffast-math")
    found = {line.split()[1] for line in check_isa_symbols.problems(tmp_path)}
    assert found == {"-march=native", "-fopenmp", "-ffast-math"}


def test_a_folder_without_objects_is_no_proof(tmp_path: Path) -> None:
    write(tmp_path, "build.ninja", "")
    assert "no object" in "\n".join(check_isa_symbols.problems(tmp_path))


# --- benchmarks/instructions.py


@pytest.fixture
def instructions() -> ModuleType:
    return load("instructions", TOOLS.parents[1] / "benchmarks")


def counts(folder: Path, **changed: object) -> Path:
    here = {"machine": platform.machine(), "isa": "avx2", "compiler": "c", "libc": "l"}
    file = folder / "counts.json"
    file.write_text(json.dumps({**here, "instructions": {"a": 1000, "b": 1000}, **changed}))
    return file


@pytest.mark.parametrize(
    ("new", "code", "word"),
    [
        ({"a": 1000, "b": 1020}, 0, "1.0200\n"),
        ({"a": 1000, "b": 1021}, 1, "1.0210   REGRESSION\n"),
        ({"a": 900, "b": 1000}, 0, "0.9000   better: --update\n"),
        ({"a": 1000, "c": 5}, 0, "new: --update\n"),
    ],
)
def test_more_instructions_are_a_regression(
    instructions: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    new: dict[str, int],
    code: int,
    word: str,
) -> None:
    here = {"machine": platform.machine(), "isa": "avx2", "compiler": "c", "libc": "l"}
    monkeypatch.setattr(instructions.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(instructions.shutil, "which", lambda _: "/bin/valgrind")
    monkeypatch.setattr(instructions, "environment", lambda _: (here, list(new)))
    monkeypatch.setattr(instructions, "count_all", lambda *_: new)
    assert instructions.main(["p", f"--baseline={counts(tmp_path)}"]) == code
    assert word in capsys.readouterr().out + "\n"
    # Of another compiler, nothing is said.
    arguments = ["p", f"--baseline={counts(tmp_path, compiler='d')}"]
    assert instructions.main(arguments) == 0
    assert (
        capsys.readouterr().out
        == "not compared with the baseline: compiler is c, in the baseline d\n"
    )
    assert instructions.main([*arguments, "--update"]) == 0
    assert json.loads((tmp_path / "counts.json").read_text())["instructions"] == new
