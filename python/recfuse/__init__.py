"""Exact multimodal recommendation at kernel speed."""

from __future__ import annotations

__version__ = "0.1.0"
