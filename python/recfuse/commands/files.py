"""The command `verify`."""

from __future__ import annotations

from pathlib import Path

from recfuse import storage
from recfuse._base import Estimator
from recfuse._retrieval_file import parsed
from recfuse.persistence import load

__all__ = ["verify"]


def verify(path: Path) -> str:
    """Read a whole model file; FormatError for whatever is wrong with it, else what it holds."""
    file = storage.open_file(path, verify=True)
    arrays = dict(file.arrays)  # strings and booleans are looked at here
    lines = [f"{path}: {file.kind}, format {file.version}, {file.size:,} bytes"]
    lines += [f"  {name}: {array.dtype} {array.shape}" for name, array in arrays.items()]
    if file.kind == "estimator":
        model = load(path, verify=False)
        if isinstance(model, Estimator):
            model._read_pending()
        lines.append(f"  holds {model!r}")
    if "retrieval" in file.metadata:
        retrieval = parsed(file.metadata["retrieval"], file.arrays.views)
        retrieval.check()
        lines.append(f"  can be searched from C and C++ by {', '.join(retrieval.names)}")
    return "\n".join([*lines, "  every checksum is right"])
