"""Fusion of behaviour and content."""

from __future__ import annotations

from recfuse.fusion.explanation import Explanation
from recfuse.fusion.factor_map import FactorMap
from recfuse.fusion.importance import Importance, Step
from recfuse.fusion.new_users import similar_profiles
from recfuse.fusion.recommender import MultimodalRecommender

__all__ = [
    "Explanation",
    "FactorMap",
    "Importance",
    "MultimodalRecommender",
    "Step",
    "similar_profiles",
]
