"""Hold the C library against its baseline: exported symbols with their versions, and layouts.

    check_abi.py librecfuse_c.so test_abi_layout tests/cpp/abi.txt

What is missing from the library breaks programs; what is new belongs into the baseline, under a
new version of the symbols (``cpp/src/c/recfuse.map``). Exits 1 for either.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def exported(library: str) -> list[str]:
    """Return ``symbol version`` of every function that the library exports, and its SONAME."""
    table = run("nm", "--dynamic", "--defined-only", "--with-symbol-versions", library)
    found = re.findall(r"^[0-9a-f]+ ([A-Z]) (\S+?)@@?(\S+)$", table, re.MULTILINE)
    names = sorted(f"symbol {name} {version}" for kind, name, version in found if kind != "A")
    # A version is an absolute symbol of its own.
    unversioned = re.findall(r"^[0-9a-f]+ [B-Z] ([^@\s]+)$", table, re.MULTILINE)
    soname = re.findall(r"SONAME\).*\[(.*)\]", run("readelf", "--dynamic", library))
    return [f"soname {name}" for name in soname] + names + [f"symbol {n} -" for n in unversioned]


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(library: str, layout: str, baseline: str) -> int:
    """Print what differs."""
    found = exported(library) + run(layout).splitlines()
    if baseline == "-":
        print("\n".join(found))
        return 0
    expected = Path(baseline).read_text(encoding="utf-8").splitlines()
    for line in expected:
        if line not in found:
            print(f"gone, which breaks programs: {line}")
    for line in found:
        if line not in expected:
            print(f"new, to be written into {baseline}: {line}")
    return int(sorted(found) != sorted(expected))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
