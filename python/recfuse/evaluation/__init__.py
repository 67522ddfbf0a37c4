"""Splits of interactions, and metrics of what a model recommends."""

from __future__ import annotations

from recfuse.evaluation.bootstrap import Difference, paired_bootstrap
from recfuse.evaluation.compare import Comparison, compare, evaluate
from recfuse.evaluation.metrics import RankingMetrics, log_loss, mae, mse, ranking_metrics, rmse
from recfuse.evaluation.splits import (
    Split,
    cold_items,
    k_fold,
    leave_k_out,
    leave_one_out,
    random_split,
    time_split,
    user_time_split,
)

__all__ = [
    "Comparison",
    "Difference",
    "RankingMetrics",
    "Split",
    "cold_items",
    "compare",
    "evaluate",
    "k_fold",
    "leave_k_out",
    "leave_one_out",
    "log_loss",
    "mae",
    "mse",
    "paired_bootstrap",
    "random_split",
    "ranking_metrics",
    "rmse",
    "time_split",
    "user_time_split",
]
