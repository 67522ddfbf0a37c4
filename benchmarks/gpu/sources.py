"""The hash of what a GPU runs: evidence of other sources is stale."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [
    "cuda/src/**/*.cu*",
    "cuda/CMakeLists.txt",  # the compiler's options
    "cpp/include/recfuse/canonical.hpp",
    "cpp/include/recfuse/fusion.hpp",
]


def kernel_hash(root: Path = ROOT) -> str:
    """Return the SHA-256 of the names and contents of the kernels' sources."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in SOURCES for file in root.glob(pattern)):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
