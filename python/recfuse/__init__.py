"""Exact multimodal recommendation at kernel speed."""

from __future__ import annotations

from recfuse.backend import doctor
from recfuse.ops import FusedIndex, fuse_topk, topk

__version__ = "0.1.0"
__all__ = ["FusedIndex", "__version__", "doctor", "fuse_topk", "topk"]
