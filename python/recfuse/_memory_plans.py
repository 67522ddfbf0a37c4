"""The plan of every op."""

from __future__ import annotations

from collections.abc import Callable

from recfuse._als_plans import plan_als
from recfuse._buffers import Plan
from recfuse._cosine_plans import plan_cosine_knn
from recfuse._search_plans import plan_index, plan_rank_pairs, plan_topk

__all__ = ["PLANS"]

PLANS: dict[str, Callable[..., Plan]] = {
    "topk": plan_topk,
    "fuse_topk": plan_topk,
    "FusedIndex": plan_index,
    "rank_pairs": plan_rank_pairs,
    "cosine_knn": plan_cosine_knn,
    "als": plan_als,
}
