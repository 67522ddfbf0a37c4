"""Texts to lists without leaving the device: a network of MiniLM's size, fusion, top-k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import recfuse
from recfuse.bench.clock import Clock
from recfuse.serving import OnnxEncoder, Pipeline

LAYERS, HEADS, WORDS = 6, 12, 30_522
SETS = 3


class Sizes:
    """Of the network and of a request; small ones where a CPU stands in for the device."""

    def __init__(self, device: str) -> None:
        big = device == "cuda"
        self.batch, self.tokens, self.n_items = (256, 32, 1_000_000) if big else (4, 6, 500)
        self.width, self.words = (384, WORDS) if big else (24, 50)
        self.factors = 64 if big else 8


def onnx_model(sizes: Sizes) -> bytes:
    """Return a transformer with random weights: ids[n, t] -> hidden[n, t, width]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, d = np.random.default_rng(0), sizes.width
    nodes, weights = [], []

    def constant(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape, np.float32) * np.float32(0.05)
        weights.append(numpy_helper.from_array(values, name))
        return name

    def numbers(name: str, values: Any, dtype: Any = np.int64) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(kind: str, inputs: list[str], out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def linear(x: str, name: str, n_in: int, n_out: int) -> str:
        product = node("MatMul", [x, constant(f"{name}.w", n_in, n_out)], f"{name}.product")
        return node("Add", [product, constant(f"{name}.b", n_out)], f"{name}.out")

    def normed(x: str, name: str) -> str:
        scale = numbers(f"{name}.scale", np.ones(d), np.float32)
        shift = numbers(f"{name}.shift", np.zeros(d), np.float32)
        return node("LayerNormalization", [x, scale, shift], f"{name}.out", axis=-1)

    split, whole = numbers("split", [0, 0, HEADS, d // HEADS]), numbers("whole", [0, 0, d])
    root = numbers("root", np.sqrt(d / HEADS), np.float32)
    sqrt2, one, half = (
        numbers(name, value, np.float32)
        for name, value in (("sqrt2", np.sqrt(2)), ("one", 1), ("half", 0.5))
    )
    x = node("Gather", [constant("words", sizes.words, d), "ids"], "embedded")
    for i in range(LAYERS):
        parts = {}
        for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            flat = linear(x, f"{i}.{part}", d, d)
            heads = node("Reshape", [flat, split], f"{i}.{part}.heads")
            parts[part] = node("Transpose", [heads], f"{i}.{part}.turned", perm=order)
        raw = node("MatMul", [parts["q"], parts["k"]], f"{i}.raw")
        shares = node("Softmax", [node("Div", [raw, root], f"{i}.scaled")], f"{i}.shares", axis=-1)
        seen = node("MatMul", [shares, parts["v"]], f"{i}.seen")
        back = node("Transpose", [seen], f"{i}.back", perm=[0, 2, 1, 3])
        mixed = linear(node("Reshape", [back, whole], f"{i}.joined"), f"{i}.o", d, d)
        x = normed(node("Add", [x, mixed], f"{i}.sum"), f"{i}.norm")
        wide = linear(x, f"{i}.wide", d, 4 * d)
        erf = node("Erf", [node("Div", [wide, sqrt2], f"{i}.e")], f"{i}.erf")
        gate = node("Mul", [node("Add", [erf, one], f"{i}.e1"), half], f"{i}.gate")
        narrow = linear(node("Mul", [wide, gate], f"{i}.gelu"), f"{i}.narrow", 4 * d, d)
        x = normed(node("Add", [x, narrow], f"{i}.sum2"), f"{i}.norm2")
    node("Identity", [x], "hidden")
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["n", "t", d])], weights,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def items_of(sizes: Sizes, device: str) -> dict[str, torch.Tensor]:
    """Draw the vectors of the items on the device."""
    widths = {"text": sizes.width, "factors": sizes.factors}
    return {name: torch.randn(sizes.n_items, d, device=device) for name, d in widths.items()}


def by_torch(sizes: Sizes, clock: Clock) -> dict[str, Any]:
    """Time a network of PyTorch alone, and with the search of what it gives."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        sizes.width, HEADS, 4 * sizes.width, activation="gelu", batch_first=True
    )
    network = torch.nn.Sequential(
        torch.nn.Embedding(sizes.words, sizes.width),
        torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False),
    )
    network = network.to(clock.device).eval()
    shape = (sizes.batch, sizes.tokens)
    texts = [torch.randint(sizes.words, shape, device=clock.device) for _ in range(SETS)]
    factors = torch.randn(sizes.batch, sizes.factors, device=clock.device)
    index = recfuse.FusedIndex(items_of(sizes, clock.device), device="cuda")

    def encode(i: int) -> Any:
        with torch.no_grad():
            return network(texts[i % SETS]).mean(1)

    def whole(i: int) -> Any:
        queries = {"text": encode(i), "factors": factors}
        return index.topk(queries, 10, weights={"text": 1.0, "factors": 0.5})

    return compared(clock, encode, whole)


def by_onnx(sizes: Sizes, clock: Clock) -> dict[str, Any]:
    """Time ONNX Runtime alone, and the whole pipeline."""
    encoder = OnnxEncoder(
        onnx_model(sizes), device=clock.device, batch_size=sizes.batch, pooling="mean"
    )
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, sizes.words, (sizes.batch, sizes.tokens)) for _ in range(SETS)]
    factors = torch.randn(sizes.batch, sizes.factors, device=clock.device)
    pipeline = Pipeline(
        recfuse.FusedIndex(items_of(sizes, clock.device), device="cuda"),
        {"text": encoder},
        weights={"text": 1.0, "factors": 0.5},
    )

    def whole(i: int) -> Any:
        return pipeline.topk({"text": texts[i % SETS], "factors": factors})

    return compared(clock, lambda i: encoder.encode_on_device(texts[i % SETS]), whole)


def compared(
    clock: Clock, encode: Callable[[int], Any], whole: Callable[[int], Any]
) -> dict[str, Any]:
    """Time both, and list what the whole does on the device."""
    return {
        "encoder_ms": clock.time(encode),
        "whole_ms": clock.time(whole),
        "kernels": clock.kernels(lambda: whole(0)),
    }


def obstacle(device: str) -> str | None:
    """Return why the part of ONNX Runtime cannot be measured; None where it can."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        return str(error)
    from recfuse.serving._session import cuda_obstacle

    reason: str | None = cuda_obstacle(onnxruntime) if device == "cuda" else None
    return reason
