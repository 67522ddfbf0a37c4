"""Models to be served: neural encoders by ONNX Runtime, and fitted models as exact searches."""

from __future__ import annotations

from recfuse.serving.encoder import OnnxEncoder
from recfuse.serving.export import export_onnx
from recfuse.serving.pipeline import Pipeline, Timings
from recfuse.serving.ranker import OnnxRanker
from recfuse.serving.retriever import Retriever

__all__ = ["OnnxEncoder", "OnnxRanker", "Pipeline", "Retriever", "Timings", "export_onnx"]
