"""Hold every include and every import against the layers of docs/architecture.md.

What a table below does not name is not allowed. Prints ``file:line: what is wrong``; exits 1 if
there is anything.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

# Files of C++ -> what they may include in quotes. The first pattern that fits decides.
INCLUDES = [
    ("cpp/include/recfuse/*", ["recfuse/*"]),
    # A kernel's unit is compiled for one instruction set: it sees nothing that defines a function
    # which another unit could share. These headers have internal linkage throughout.
    (
        "cpp/src/kernels/*",
        ["*.inl.hpp", "table.hpp", "recfuse/canonical.hpp", "recfuse/confidence.hpp"],
    ),
    ("cpp/src/aligned.hpp", []),
    ("cpp/src/als_memory.cpp", ["recfuse/als_memory.hpp"]),
    ("cpp/src/device_memory.cpp", ["recfuse/device_memory.hpp"]),
    ("cpp/src/sparse_memory.cpp", ["recfuse/sparse_memory.hpp"]),
    ("cpp/src/isa/dispatch.*", ["isa/dispatch.hpp", "kernels/table.hpp", "recfuse/isa.hpp"]),
    ("cpp/src/isa/*", ["kernels/all.inl.hpp"]),
    # What reads a model file may search, but knows nothing of how.
    ("cpp/src/model/*", ["model/*", "recfuse/*"]),
    ("cpp/src/c/*", ["recfuse/*"]),
    ("cpp/src/parallel_for.*", ["parallel_for.hpp", "recfuse/parallel.hpp"]),
    ("cpp/src/names.*", ["recfuse/*"]),
    ("cpp/src/validate.*", ["validate.hpp", "parallel_for.hpp", "recfuse/*"]),
    (
        "cpp/src/ops/*",
        [
            "ops/*",
            "isa/dispatch.hpp",
            "kernels/table.hpp",
            "aligned.hpp",
            "parallel_for.hpp",
            "validate.hpp",
            "recfuse/*",
        ],
    ),
    ("cuda/include/recfuse/*", ["recfuse/*"]),
    ("cuda/src/emulator.hpp", ["*.cuh", "emulated_*.hpp", "recfuse/*"]),
    ("cuda/src/emulated_memory.hpp", ["emulated_feed.hpp", "recfuse/*"]),
    # A kernel is written against block.cuh; only device.* and the .cu files know CUDA.
    ("cuda/src/device.cu", ["device.cuh", "diagnosis.hpp", "recfuse/*"]),
    ("cuda/src/*", ["*.cuh", "recfuse/*"]),
    (
        "bindings/emulated_*.cpp",
        [
            "recfuse/*",
            "*.cuh",
            "device_arrays.hpp",
            "emulated.hpp",
            "emulated_memory.hpp",
            "emulator.hpp",
            "errors.hpp",
            "ops/*",
        ],
    ),
    (
        "bindings/*",
        [
            "recfuse/*",
            "arrays.hpp",
            "backends.hpp",
            "bind_all.hpp",
            "device_arrays.hpp",
            "dlpack.hpp",
            "errors.hpp",
            "ops/*",
        ],
    ),
    ("tests/cpp/*", ["*"]),
]
CXX = ["cpp/**/*.?pp", "cuda/**/*.hpp", "cuda/**/*.cu*", "bindings/**/*.?pp"]
KERNEL_HEADERS = {"cstdint", "immintrin.h", "arm_neon.h"}
CUDA_FILES = {"cuda/src/device.cuh", "cuda/src/half.cuh"}
# Of the library, one that copies to a GPU, and one for each of several; a block on the emulator has
# some as one on a GPU has warps.
THREAD_FILES = {
    "cpp/src/parallel_for.cpp",
    "cuda/src/block_loader.cuh",
    "cuda/src/parallel_devices.cuh",
    "cuda/src/emulated_crew.hpp",
}
THREAD_HEADERS = {"thread", "future", "condition_variable", "pthread.h", "omp.h"}

# Folders of python/recfuse -> the folders beside them that they may import. Every folder may use
# the files of the ground floor, and those may use no folder.
FOLDERS: dict[str, set[str]] = {
    "models": set(),
    "preprocess": {"models"},
    "privacy": {"models", "fusion"},
    "fusion": {"models"},
    "features": {"serving"},
    "serving": set(),
    "evaluation": set(),
    "training": set(),
    "plots": set(),
    "datasets": set(),
    "compat": {"models"},
    "adapters": {"models", "fusion", "features", "compat"},
    "bench": {"datasets"},
    "commands": {"models", "fusion", "evaluation", "preprocess"},
    "service": {"models", "fusion", "serving"},
    "demo": {"models", "fusion", "features", "serving", "evaluation", "datasets"},
}
# These tie the rest together, lazily.
ABOVE_ALL = {"__init__.py", "cli.py"}
# At import time a module may need these only; an extra is imported by the function that uses it.
RUN_TIME = {"numpy", "scipy", "recfuse", *sys.stdlib_module_names}
# What is nothing without its extra: a folder that cli.py imports where it is used, and modules that
# are named after the library whose classes theirs inherit from.
OF_EXTRAS = {
    "service": {"fastapi", "httptools", "orjson", "prometheus_client", "pydantic", "uvicorn"},
    "adapters/cornac.py": {"cornac"},
    "adapters/lenskit.py": {"lenskit", "pydantic"},
}
COMPILED = {"recfuse._core", "recfuse._cuda"}


def include_violations(root: Path) -> Iterator[str]:
    """Yield what is wrong with the includes of cpp/, cuda/ and bindings/."""
    for file in sorted(file for pattern in CXX for file in root.glob(pattern)):
        name = file.relative_to(root).as_posix()
        allowed = next((a for pattern, a in INCLUDES if fnmatch(name, pattern)), None)
        if allowed is None:
            yield f"{name}:1: belongs to no layer of tests/tools/check_layers.py"
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for problem in line_problems(name, line, allowed):
                yield f"{name}:{number}: {problem}"


def line_problems(name: str, line: str, allowed: list[str]) -> Iterator[str]:
    """Yield what is wrong with one line of C++."""
    quoted = re.match(r'\s*#\s*include\s*"(.*)"', line)
    if quoted and not any(fnmatch(quoted[1], pattern) for pattern in allowed):
        yield f'may not include "{quoted[1]}"'
    angle = re.match(r"\s*#\s*include\s*<(.*)>", line)
    if angle and angle[1].startswith("pybind11/") and not name.startswith("bindings/"):
        yield f"only bindings/ may include <{angle[1]}>"
    if angle and angle[1].startswith("cuda") and name not in CUDA_FILES:
        yield f"only {' and '.join(sorted(CUDA_FILES))} may include <{angle[1]}>"
    if angle and name.startswith("cpp/src/kernels/") and angle[1] not in KERNEL_HEADERS:
        yield f"a kernel may not include <{angle[1]}>"
    if angle and angle[1] in THREAD_HEADERS and name not in THREAD_FILES:
        allowed = " and ".join(sorted(THREAD_FILES))
        yield f"only {allowed} have threads, and none of OpenMP; <{angle[1]}>"
    if re.match(r"\s*#\s*pragma\s+omp\s+(?!simd)", line):
        yield "no OpenMP but `omp simd`: its run time does not survive a fork"


def import_violations(root: Path) -> Iterator[str]:
    """Yield what is wrong with the imports of python/recfuse."""
    package = root / "python" / "recfuse"
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        parts = file.relative_to(package).parts
        if len(parts) > 1 and parts[0] not in FOLDERS:
            yield f"{name}:1: folder {parts[0]!r} is none of those in tests/tools/check_layers.py"
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for number, module, at_import in imports(tree):
            for problem in import_problems(parts, module, at_import):
                yield f"{name}:{number}: {problem}"


def imports(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, dotted name, whether importing the file imports it) of every import."""
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.Lambda) or is_type_checking(outer)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in names:
            yield node.lineno, module, id(node) not in inside


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def import_problems(parts: tuple[str, ...], module: str, at_import: bool) -> Iterator[str]:
    """Yield what is wrong with one import in the file `parts` of the package."""
    if module.startswith("."):
        yield f"imports are absolute; got {module!r}"
        return
    top, *rest = module.split(".")
    extra = OF_EXTRAS.get("/".join(parts), set())
    if len(parts) > 1:
        extra = extra | OF_EXTRAS.get(parts[0], set())
    if at_import and top not in RUN_TIME | extra:
        yield f"{top} is no run-time dependency: import it in the function that uses it"
    if any(module == name or module.startswith(f"{name}.") for name in COMPILED):
        yield f"only backend.py loads the compiled modules, by name; got {module}"
    folder = rest[0] if top == "recfuse" and rest and rest[0] in FOLDERS else None
    here = parts[0] if len(parts) > 1 else None
    if folder is None or parts[0] in ABOVE_ALL:
        return
    if here is None:
        yield f"the ground floor may not use the folder {folder!r}"
    elif folder != here and folder not in FOLDERS[here]:
        yield f"{here!r} may not use the folder {folder!r}"


def violations(root: Path) -> list[str]:
    return [*include_violations(root), *import_violations(root)]


if __name__ == "__main__":
    sys.exit("\n".join(violations(Path(__file__).parents[2])) or 0)
