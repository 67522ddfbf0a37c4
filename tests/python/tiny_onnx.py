"""Tiny ONNX models in the textual syntax of ONNX, and a tokenizer to go with the token models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recfuse.serving import OnnxEncoder

onnxruntime = pytest.importorskip("onnxruntime", reason="the encoder needs onnxruntime")
onnx = pytest.importorskip("onnx", reason="the models of these tests are made with onnx")
pytest.importorskip("onnx.parser")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "alien", "toy", "story", "a", "bug", "life", "怪物"]

TEXTS = ["toy story", "a bug a life a story", "", "alien", "怪物 alien", "unheard of words"] * 3

TWO_OUTPUTS = "two (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) { y = Neg(x) z = Abs(x) }"


def on_cpu(source: Any, **options: Any) -> OnnxEncoder:
    """Return an encoder on two threads of the CPU."""
    return OnnxEncoder(source, device="cpu", num_threads=2, **options)


def model(graph: str, opset: int = 17) -> bytes:
    """Bytes of the model whose graph is written as ``name (inputs) => (outputs) { nodes }``."""
    header = f'<ir_version: 8, opset_import: ["": {opset}]>\n'
    return onnx.parser.parse_model(header + graph).SerializeToString()


def linear(batch: str = "n") -> bytes:
    """Bytes of y = x @ [[1, 0], [0, 2], [1, 1]], with a dynamic or static batch axis."""
    return model(
        f"linear (float[{batch}, 3] x) => (float[{batch}, 2] y)"
        " <float[3, 2] w = {1, 0, 0, 2, 1, 1}> { y = MatMul(x, w) }"
    )


LINEAR = np.array([[1, 0], [0, 2], [1, 1]], np.float32)


def table(rng: np.random.Generator, dim: int = 4) -> np.ndarray[Any, Any]:
    """Draw a vector for every word; that of padding is huge, so that a mistake is seen."""
    vectors = rng.standard_normal((len(WORDS), dim)).astype(np.float32)
    vectors[0] = 1e6
    return vectors


def tokens(vectors: np.ndarray[Any, Any], *, mask: bool = True, axes: str = "n, t") -> bytes:
    """Bytes of hidden[n, t] = vectors[ids[n, t]]; with a mask, padding becomes 0 / 0."""
    rows, dim = vectors.shape
    numbers = ", ".join(repr(float(x)) for x in vectors.ravel())
    inputs, nodes = f"int64[{axes}] input_ids", "hidden = Gather(w, input_ids)"
    if mask:
        inputs += f", int64[{axes}] attention_mask"
        nodes = """
            found = Gather(w, input_ids)
            real = Cast<to = 1>(attention_mask)
            axis = Constant<value_ints = [2]>()
            wide = Unsqueeze(real, axis)
            masked = Mul(found, wide)
            hidden = Div(masked, wide)"""
    return model(
        f"tokens ({inputs}) => (float[{axes}, {dim}] hidden)"
        f" <float[{rows}, {dim}] w = {{{numbers}}}> {{ {nodes} }}"
    )


def tokenizer(**truncation: int) -> Any:
    """Return words split at spaces, [CLS] before and [SEP] behind; unknown words are [UNK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if truncation:
        words.enable_truncation(**truncation)
    return words
