"""From tables and matrices as they come to what models take: read, clean, scale, fill, check."""

from __future__ import annotations

from recfuse.preprocess._frames import read_table
from recfuse.preprocess._step import Report, ReportLine
from recfuse.preprocess.cleaning import Cleaner
from recfuse.preprocess.completion import MatrixCompletion
from recfuse.preprocess.events import EventReader
from recfuse.preprocess.missing import MissingValues
from recfuse.preprocess.pipeline import Pipeline
from recfuse.preprocess.report import CheckReport, Finding, check
from recfuse.preprocess.scaling import L2Normalizer, MinMax, Standardizer

__all__ = [
    "CheckReport",
    "Cleaner",
    "EventReader",
    "Finding",
    "L2Normalizer",
    "MatrixCompletion",
    "MinMax",
    "MissingValues",
    "Pipeline",
    "Report",
    "ReportLine",
    "Standardizer",
    "check",
    "read_table",
]
