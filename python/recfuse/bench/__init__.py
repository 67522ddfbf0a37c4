"""Every op against its peers and against the limits of this machine: ``recfuse bench``.

A `Case` is one workload: its generated inputs, what computing it must cost at least, and how two
answers are compared. A `Contender` computes it: recfuse, or a peer. A `Race` gives every contender
a process of its own, checks every answer, and then times them in turn.
"""

from __future__ import annotations

from recfuse.bench.case import Answer, Case, Contender, Cost, Ready
from recfuse.bench.race import Race, WrongAnswerError
from recfuse.bench.roofline import Ceilings, measure_ceilings
from recfuse.bench.run import list_cases, main_bench

__all__ = [
    "Answer",
    "Case",
    "Ceilings",
    "Contender",
    "Cost",
    "Race",
    "Ready",
    "WrongAnswerError",
    "list_cases",
    "main_bench",
    "measure_ceilings",
]
