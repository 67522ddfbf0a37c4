"""Splits of interactions, and metrics of what a model recommends."""

from __future__ import annotations

from recfuse.evaluation._costs import Costs
from recfuse.evaluation._evaluate import evaluate, evaluate_ranks
from recfuse.evaluation.bootstrap import Difference, paired_bootstrap
from recfuse.evaluation.compare import compare
from recfuse.evaluation.comparison import Comparison
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
from recfuse.evaluation.tuning import Trial, Tuning, ranking_objective, tune

__all__ = [
    "Comparison",
    "Costs",
    "Difference",
    "RankingMetrics",
    "Split",
    "Trial",
    "Tuning",
    "cold_items",
    "compare",
    "evaluate",
    "evaluate_ranks",
    "k_fold",
    "leave_k_out",
    "leave_one_out",
    "log_loss",
    "mae",
    "mse",
    "paired_bootstrap",
    "random_split",
    "ranking_metrics",
    "ranking_objective",
    "rmse",
    "time_split",
    "tune",
    "user_time_split",
]
