"""Print what an extra of recfuse and its build need, a requirement a line, as in pyproject.toml.

``python tools/requirements.py dev`` lets pip install them before, and apart from, recfuse itself.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

CMAKE = ["cmake>=3.20", "ninja>=1.10"]  # the build asks for these where the machine has none


def requirements(pyproject: dict[str, Any], extra: str) -> list[str]:
    """Return the requirements of `extra`, those of the extras that it names included."""
    found = []
    for line in pyproject["project"]["optional-dependencies"][extra]:
        nested = re.fullmatch(r"recfuse\[(.*)\]", line.replace(" ", ""))
        if nested:
            for name in nested[1].split(","):
                found += requirements(pyproject, name)
        else:
            found.append(line)
    return found


if __name__ == "__main__":
    pyproject = tomllib.loads(
        Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
    )
    needed = [*pyproject["build-system"]["requires"], *CMAKE, *pyproject["project"]["dependencies"]]
    for name in sys.argv[1:]:
        needed += requirements(pyproject, name)
    print("\n".join(dict.fromkeys(needed)))
