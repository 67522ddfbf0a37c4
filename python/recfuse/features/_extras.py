"""Libraries that an extra brings, imported by what uses them."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load_extra"]


def load_extra(module: str, extra: str, op: str) -> Any:
    """Import a library, or say which extra it comes with."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{op} needs {module.split('.')[0]}: pip install 'recfuse[{extra}]'"
        ) from error
