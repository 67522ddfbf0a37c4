"""Neural encoders trained elsewhere, served by ONNX Runtime; imported by the first session."""

from __future__ import annotations

from recfuse.serving.encoder import OnnxEncoder
from recfuse.serving.export import export_onnx
from recfuse.serving.pipeline import Pipeline, Timings
from recfuse.serving.ranker import OnnxRanker

__all__ = ["OnnxEncoder", "OnnxRanker", "Pipeline", "Timings", "export_onnx"]
