"""Look into the objects of a build: does any carry instructions that its caller's CPU may lack?

File flags reach every inline function that a unit includes. If the linker keeps the AVX-512 copy of
a function that other units share, older CPUs die far from any kernel. So an object of one
instruction set exports its table and nothing else, and no other object holds AVX instructions.

``python check_isa_symbols.py BUILD_DIR...`` prints what is wrong and exits 1 if there is anything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BEYOND_BASELINE = re.compile(r":\tv(?!err|erw)")  # AVX, in a listing for x86: every name begins so
FLAGS = re.compile(
    r"-march=\S+|-mtune=native|-mcpu=native|-ffast-math|-Ofast|-flto|-fopenmp(?!-simd)"
)


def is_isa_object(path: Path) -> bool:
    return path.parent.name == "isa" and not path.name.startswith("dispatch.")


def symbol_problems(path: Path) -> Iterator[str]:
    """Yield what an object of one instruction set exports besides ``kernels::<isa>::table``."""
    listing = subprocess.run(
        ["nm", "--demangle", "--defined-only", str(path)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    table = f"recfuse::kernels::{path.name.split('.')[0]}::table"
    exported = set()
    for line in listing.splitlines():
        _address, kind, name = line.split(maxsplit=2)
        if kind in "wWvVu":
            yield f"{path}: {name} is weak: the linker may give it to every CPU"
        elif kind.isupper():
            exported.add(name)
    if exported != {table}:
        yield f"{path}: must export {table} alone; got {sorted(exported)}"


def instruction_problems(path: Path) -> Iterator[str]:
    """Yield the functions of an object that use instructions which the baseline lacks."""
    function = ""
    listing = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(path)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    seen = set()
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line.partition("<")[2][:-2]
        elif BEYOND_BASELINE.search(line) and function not in seen:
            seen.add(function)
            yield f"{path}: {function} is not baseline code: {line.strip()}"


def flag_problems(build: Path) -> Iterator[str]:
    """Yield flags that would tie the build to this machine, change sums, or bring OpenMP."""
    text = (build / "build.ninja").read_text(encoding="utf-8")
    for flag in sorted(set(FLAGS.findall(text))):
        yield f"{build / 'build.ninja'}: {flag} has no place here"


def problems(build: Path) -> list[str]:
    """Return what is wrong with the objects under `build`."""
    objects = sorted(build.rglob("*.o"))
    found = list(flag_problems(build))
    if not any(map(is_isa_object, objects)):
        found.append(f"{build}: no object of any instruction set")
    for path in objects:
        if is_isa_object(path):
            found += symbol_problems(path)
        if not is_isa_object(path) or path.name.startswith("baseline."):
            found += instruction_problems(path)
    return found


if __name__ == "__main__":
    sys.exit("\n".join(line for build in sys.argv[1:] for line in problems(Path(build))) or 0)
