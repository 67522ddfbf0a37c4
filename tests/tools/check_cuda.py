"""Compile the kernels of the GPU and look at what came of them; needs nvcc, not a GPU.

Per kernel: nothing spilled, nothing on the stack, no more registers and shared memory than a block
may have, and no word of the assembler that it waits between products or ignores the registers asked
for. In the PTX: the instructions that screens and sums are made of, no local memory, and no
rounding that the CPU does not have, with the options of the build. In the machine code, where the
disassembler is installed: the matrix units' and the copies' instructions, no local memory either.

``python check_cuda.py [ARCHITECTURE...]`` prints a table and what is wrong; exits 1 if anything is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ["fuse_topk", "cosine_knn", "als", "als_block", "als_cg", "als_dual"]
ARCHITECTURES = ["80", "90a"]
MOST_REGISTERS = 255
MOST_STATIC_SHARED = 48 << 10
# What would make scores others than the CPU's.
NOT_IEEE = re.compile(r"\bfma\.\w+\.f64|\S+\.(?:approx|ftz|full)\b\S*")
# By the name of a kernel and the architectures that have it: its PTX, its machine code.
EXPECTED = {
    "Screen": (
        {"80", "90a"},
        [
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
            "cp.async.cg.shared.global",
        ],
        ["HMMA"],
    ),
    "HopperScan": (
        {"90a"},
        [
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16",
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes",
            "mbarrier.try_wait.parity.shared::cta.b64",
            "setmaxnreg.inc.sync.aligned.u32",
        ],
        ["HGMMA", "UBLKCP", "USETMAXREG"],
    ),
    **dict.fromkeys(
        ("MultiplyParts", *(f"SolveRows<float, {i}>" for i in ("1, 2", "1, 5", "1, 17", "0, 17"))),
        (
            {"80", "90a"},
            [
                "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
                "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
                "cp.async.cg.shared.global",
                "cp.async.ca.shared.global",
            ],
            ["HMMA"],
        ),
    ),
    "MultiplyDense": (
        {"80", "90a"},
        [
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32",
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
            "cp.async.cg.shared.global",
        ],
        ["IMMA"],
    ),
    # Natively, not by comparing and swapping.
    **dict.fromkeys(
        (
            f"SearchRows<{sums}, {places}{support}>"
            for places in ("StripPlaces", "TablePlaces")
            for sums, support in (("CountSums", ""), ("FixedSums", ", 0"), ("FixedSums", ", 1"))
        ),
        ({"80", "90a"}, ["atom.shared.add.u32"], ["ATOMS"]),
    ),
}
# What adds up by atomics does it natively, wherever the sums are: none of these. In a table an id
# takes its place by one, once.
COMPARE_AND_SWAP = re.compile(r"\batom\S*\.cas\b|\bATOM\w*\.(?:CAS|CAST)\b")
ADDS_BY_ATOMICS = ("SearchRows", "CountEntries", "FillLists", "MeasureColumns", "CopyOthers")
SWAPS = re.compile(r"\bTablePlaces\b")


@dataclass
class Kernel:
    """What ptxas says of one kernel."""

    name: str
    stack: int
    spilled: int
    registers: int
    shared: int


def build_options() -> list[str]:
    """Return the options for nvcc that the build has beside those of CMake."""
    text = (ROOT / "cuda" / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(r"target_compile_options\(recfuse_cuda PRIVATE ([^)]*)\)", text)
    if found is None:
        sys.exit("cuda/CMakeLists.txt names no options")
    return found[1].split()


@dataclass
class Compiled:
    """What nvcc made of one source for one architecture, and what it said."""

    cubin: Path
    ptx: Path
    report: str


def compiled(source: str, architecture: str, folder: Path) -> Compiled:
    """Compile to machine code, and keep the PTX on the way there."""
    kept = folder / f"{source}.{architecture}"
    kept.mkdir()
    cubin = kept / f"{source}.{architecture}.cubin"
    done = subprocess.run(
        [
            "nvcc", "-std=c++20", "-O3", *build_options(), "-cubin", "-Xptxas", "-v",
            "--keep", "--keep-dir", kept,
            "-gencode", f"arch=compute_{architecture},code=sm_{architecture}",
            "-I", ROOT / "cuda/include", "-I", ROOT / "cpp/include",
            ROOT / "cuda/src" / f"{source}.cu", "-o", cubin,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(done.stderr)
    ptx = kept / f"{source}.{architecture}.ptx"
    (kept / f"{source}.ptx").rename(ptx)
    return Compiled(cubin, ptx, done.stderr)


def short_name(mangled: str) -> str:
    """Return the body of a kernel ``run<Body>``, with the arguments of its template."""
    body = re.search(r"runINS\w?_(\d+)(\w+)", mangled)
    if body is None:
        sys.exit(f"no kernel of ours by its name: {mangled}")
    name, rest = body[2][: int(body[1])], body[2][int(body[1]) :]
    types = [rest[at.end() :][: int(at[1])] for at in re.finditer(r"NS\w?_(\d+)", rest)]
    values = re.findall(r"L[ib](\d+)E", rest)
    real = {"f": ["float"], "d": ["double"]}.get(rest[1:2], [])
    arguments = [*types, *(real if values and not types else []), *values]
    return f"{name}<{', '.join(arguments)}>" if arguments else name


def kernels_in(report: str) -> list[Kernel]:
    """Return the kernels of what ``ptxas -v`` printed."""
    found = []
    for part in report.split("Compiling entry function")[1:]:
        numbers = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", part)
        used = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        name = re.search(r"'(\w+)'", part)
        if not (numbers and used and name):
            sys.exit(f"cannot read what ptxas says:\n{part}")
        found.append(
            Kernel(
                short_name(name[1]), int(numbers[1]), int(numbers[2]), int(used[1]),
                int(shared[1]) if shared else 0,
            )
        )  # fmt: skip
    return found


def resource_problems(architecture: str, kernels: list[Kernel], report: str) -> Iterator[str]:
    """Yield what is wrong with registers, stack and shared memory."""
    if not kernels:
        yield f"sm_{architecture}: ptxas names no kernel"
    # C7508: setmaxnreg is ignored; C7510 and its neighbours: products wait for each other.
    for warning in re.findall(r"^.*\(C75\d\d\).*$", report, re.MULTILINE):
        yield f"sm_{architecture}: {warning.strip()}"
    for kernel in kernels:
        where = f"sm_{architecture}: {kernel.name}"
        if kernel.stack or kernel.spilled:
            yield f"{where}: {kernel.stack} bytes on the stack, {kernel.spilled} spilled; must be 0"
        if kernel.registers > MOST_REGISTERS:
            yield f"{where}: {kernel.registers} registers; must be at most {MOST_REGISTERS}"
        if kernel.shared > MOST_STATIC_SHARED:
            yield f"{where}: {kernel.shared} bytes of static shared memory; must fit {48 << 10}"


def expected_of(name: str, architecture: str) -> tuple[list[str], list[str]]:
    """Return what the PTX and the machine code of a kernel must hold."""
    nothing: tuple[set[str], list[str], list[str]] = (set(), [], [])
    architectures, ptx, machine_code = EXPECTED.get(name, EXPECTED.get(name.split("<")[0], nothing))
    return (ptx, machine_code) if architecture in architectures else ([], [])


def missing_kernels(architecture: str, kernels: list[Kernel]) -> Iterator[str]:
    """Yield the kernels with expectations that were not compiled."""
    compiled = {name for k in kernels for name in (k.name, k.name.split("<")[0])}
    for name in sorted(EXPECTED.keys() - compiled):
        yield f"sm_{architecture}: no kernel is called {name}"


def ptx_problems(path: Path, architecture: str) -> Iterator[str]:
    """Yield what the PTX of the screens lacks, and local memory anywhere."""
    text = path.read_text(encoding="utf-8")
    for entry in text.split(".visible .entry ")[1:]:
        name = short_name(entry.split("(", 1)[0])
        if ".local " in entry:
            yield f"{path.name}: {name} uses local memory"
        for instruction in sorted(set(NOT_IEEE.findall(entry))):
            yield f"{path.name}: {name} has {instruction}: not the CPU's rounding"
        yield from swap_problems(path, name, entry)
        for instruction in expected_of(name, architecture)[0]:
            if instruction not in entry:
                yield f"{path.name}: {name} has no {instruction}"


def swap_problems(path: Path, name: str, code: str) -> Iterator[str]:
    """Yield the kernels of sums that would try again and again where threads meet."""
    if name.startswith(ADDS_BY_ATOMICS) and not SWAPS.search(name):
        for instruction in sorted(set(COMPARE_AND_SWAP.findall(code))):
            yield f"{path.name}: {name} has {instruction}: not a native addition"


def machine_code_problems(path: Path, architecture: str) -> Iterator[str]:
    """Yield kernels whose machine code loads from local memory or multiplies elsewhere."""
    listing = subprocess.run(
        ["cuobjdump", "--dump-sass", path], capture_output=True, text=True, check=True
    ).stdout
    for function in listing.split("Function : ")[1:]:
        name = short_name(function.split(maxsplit=1)[0])
        if re.search(r"\b(LDL|STL)\b", function):
            yield f"{path.name}: {name} uses local memory"
        yield from swap_problems(path, name, function)
        for instruction in expected_of(name, architecture)[1]:
            if not re.search(rf"\b{instruction}\b", function):
                yield f"{path.name}: {name} has no {instruction}"


def main(architectures: list[str]) -> int:
    """Check every architecture; return the exit status."""
    if shutil.which("nvcc") is None:
        print("no nvcc here: the kernels of the GPU were not compiled")
        return 0
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        jobs = [(source, architecture) for architecture in architectures for source in SOURCES]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = dict(
                zip(jobs, pool.map(lambda job: compiled(*job, Path(name)), jobs), strict=True)
            )
        for architecture in architectures:
            all_kernels: list[Kernel] = []
            for source in SOURCES:
                of_source = made[source, architecture]
                kernels = kernels_in(of_source.report)
                all_kernels += kernels
                problems += resource_problems(architecture, kernels, of_source.report)
                if shutil.which("cuobjdump"):
                    problems += machine_code_problems(of_source.cubin, architecture)
                problems += ptx_problems(of_source.ptx, architecture)
            print(f"sm_{architecture}")
            for kernel in sorted(all_kernels, key=lambda k: k.name):
                print(f"  {kernel.name:<48} {kernel.registers:>4} registers")
            problems += missing_kernels(architecture, all_kernels)
    if not shutil.which("cuobjdump"):
        print("no cuobjdump here: the machine code was not looked at")
    print("\n".join(problems) or "no spills, no stack, the instructions expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ARCHITECTURES))
