"""Fusion of behaviour and content."""

from __future__ import annotations

from recfuse.fusion.explanation import Explanation
from recfuse.fusion.recommender import MultimodalRecommender

__all__ = ["Explanation", "MultimodalRecommender"]
