"""Fusion of behaviour and content: early, late, learned and composed."""

from __future__ import annotations

from recfuse.fusion.early import concatenate, product, weighted_average, weighted_sum
from recfuse.fusion.explanation import Explanation
from recfuse.fusion.factor_map import FactorMap
from recfuse.fusion.fitting import FusionWeights, fit_weights
from recfuse.fusion.graph import Average, FusionNode, Max, Min, Product, Sum
from recfuse.fusion.importance import Importance, Step
from recfuse.fusion.linear import LinearFusion
from recfuse.fusion.new_users import similar_profiles
from recfuse.fusion.recommender import MultimodalRecommender
from recfuse.fusion.spaces import CommonSpace
from recfuse.fusion.stacking import StackingFusion
from recfuse.fusion.suggest import FusionOption, FusionSuggestion, suggest_fusion

__all__ = [
    "Average",
    "CommonSpace",
    "Explanation",
    "FactorMap",
    "FusionNode",
    "FusionOption",
    "FusionSuggestion",
    "FusionWeights",
    "Importance",
    "LinearFusion",
    "Max",
    "Min",
    "MultimodalRecommender",
    "Product",
    "StackingFusion",
    "Step",
    "Sum",
    "concatenate",
    "fit_weights",
    "product",
    "similar_profiles",
    "suggest_fusion",
    "weighted_average",
    "weighted_sum",
]
