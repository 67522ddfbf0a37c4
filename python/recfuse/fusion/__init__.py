"""Fusion of behaviour and content."""

from __future__ import annotations

from recfuse.fusion.recommender import Explanation, MultimodalRecommender

__all__ = ["Explanation", "MultimodalRecommender"]
