"""Splits of interactions into training and test."""

from __future__ import annotations

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
    "Split",
    "cold_items",
    "k_fold",
    "leave_k_out",
    "leave_one_out",
    "random_split",
    "time_split",
    "user_time_split",
]
