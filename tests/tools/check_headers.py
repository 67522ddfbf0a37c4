"""Compile every public header alone, twice in a unit, with warnings as errors.

    check_headers.py CXX CC FOLDER...

Headers of C++ are compiled as C++20; of C as C11 and as C++20. Exits 1 if one does not compile.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only"]


def compiled(command: list[str], folders: list[str], header: Path) -> bool:
    """Say whether a unit of nothing but the header compiles; what the compiler says is printed."""
    includes = [f"-I{folder}" for folder in folders]
    unit = f"#include <{header}>\n" * 2 + "int recfuse_nothing;\n"
    done = subprocess.run([*command, *WARNINGS, *includes, "-"], input=unit, text=True)
    if done.returncode:
        print(f"{header} does not compile alone: {' '.join(command)}")
    return done.returncode == 0


def main(cxx: str, cc: str, *folders: str) -> int:
    as_cxx, as_c = [cxx, "-std=c++20", "-x", "c++"], [cc, "-std=c11", "-x", "c"]
    good = []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.h*")):
            languages = [as_cxx, as_c] if path.suffix == ".h" else [as_cxx]
            header = path.relative_to(folder)
            good += [compiled(language, list(folders), header) for language in languages]
    print(f"{sum(good)} of {len(good)} compile")
    return 0 if good and all(good) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
