"""Exact multimodal recommendation at kernel speed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recfuse.backend import doctor
from recfuse.index import FusedIndex
from recfuse.memory import MemoryPlan, plan_memory
from recfuse.ops import cosine_knn, fuse_topk, topk

if TYPE_CHECKING:
    from recfuse import (
        adapters,
        compat,
        datasets,
        evaluation,
        features,
        fusion,
        plots,
        preprocess,
        privacy,
        rerank,
        sessions,
        training,
    )
    from recfuse.fusion import Explanation, MultimodalRecommender
    from recfuse.interactions import Interactions
    from recfuse.models import (
        AlternatingLeastSquares,
        ItemNeighbours,
        LabelledModel,
        Popularity,
        UserNeighbours,
    )
    from recfuse.persistence import load
    from recfuse.serving import OnnxEncoder, OnnxRanker

__version__ = "0.1.0"

# Imported at first use: a program that only searches loads neither SciPy's solvers nor the models.
_LAZY = {
    "AlternatingLeastSquares": "recfuse.models",
    "Explanation": "recfuse.fusion",
    "Interactions": "recfuse.interactions",
    "ItemNeighbours": "recfuse.models",
    "LabelledModel": "recfuse.models",
    "MultimodalRecommender": "recfuse.fusion",
    "OnnxEncoder": "recfuse.serving",
    "OnnxRanker": "recfuse.serving",
    "Popularity": "recfuse.models",
    "UserNeighbours": "recfuse.models",
    "load": "recfuse.persistence",
}
_FOLDERS = (
    "adapters",
    "compat",
    "datasets",
    "evaluation",
    "features",
    "fusion",
    "plots",
    "preprocess",
    "privacy",
    "rerank",
    "sessions",
    "training",
)

__all__ = [
    "AlternatingLeastSquares",
    "Explanation",
    "FusedIndex",
    "Interactions",
    "ItemNeighbours",
    "LabelledModel",
    "MemoryPlan",
    "MultimodalRecommender",
    "OnnxEncoder",
    "OnnxRanker",
    "Popularity",
    "UserNeighbours",
    "__version__",
    "adapters",
    "compat",
    "cosine_knn",
    "datasets",
    "doctor",
    "evaluation",
    "features",
    "fuse_topk",
    "fusion",
    "load",
    "plan_memory",
    "plots",
    "preprocess",
    "privacy",
    "rerank",
    "sessions",
    "topk",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f"recfuse.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'recfuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
