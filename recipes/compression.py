"""A smaller encoder and smaller items: int8 weights by ONNX Runtime, float16 and int8 vectors.

The user tower of `recipes.two_tower` is quantised dynamically; the vectors of a large catalogue are
kept in fewer bytes. Lists are compared with those of float32.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import recfuse
from recfuse.evaluation import evaluate
from recipes import shared, two_tower

K = 20


def quantised(model: bytes) -> bytes:
    """Return the model with int8 weights; activations are rounded while it runs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load_from_string(model)
    del graph.graph.value_info[:]  # shapes of weights that it transposes, and then contradicts
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "small.onnx")
        onnx.save(graph, whole)
        quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
        return small.read_bytes()


def seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median of a few runs, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def overlap(ids: shared.Array, of: shared.Array) -> float:
    """Return the share of the lists `of` that is in the lists `ids`, too."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(of, ids, strict=True)]))


def encoders(models: dict[str, bytes], data: shared.Data) -> list[list[Any]]:
    """Compare the user tower with its quantised self: bytes, time, recall, the same lists."""
    likes, rows, reference = data.liked(), [], None
    inputs = two_tower.examples(data, slice(None))["user"]
    for name, model in {"float32": models["user"], "int8": quantised(models["user"])}.items():
        retrieval = two_tower.Retrieval({**models, "user": model}, data)
        took = seconds(lambda r=retrieval: r.encoders["user"].encode(inputs))
        quality = float(evaluate(retrieval, likes.train, likes.test, k=K)[f"recall@{K}"])
        ids, _ = retrieval.recommend(np.arange(len(data.profile)), K)
        reference = ids if reference is None else reference
        rows.append([name, f"{len(model) / 1e3:.0f}", 1e3 * took, quality, overlap(ids, reference)])
    return rows


def stored(items: shared.Array) -> dict[str, tuple[int, Callable[[], shared.Array]]]:
    """Return per way to keep the vectors its bytes, and how they become float32 again."""
    half = items.astype(np.float16)
    scale = np.abs(items).max(axis=1, keepdims=True) / 127
    whole = np.rint(items / np.maximum(scale, 1e-30)).astype(np.int8)
    return {
        "float32": (items.nbytes, lambda: items),
        "float16": (half.nbytes, lambda: half.astype(np.float32)),
        "int8, a scale per item": (whole.nbytes + scale.nbytes, lambda: whole * scale),
    }


def catalogue(n_items: int, dims: int = 64) -> list[list[Any]]:
    """Compare ways to keep vectors, of items in clusters, in bytes, time to search and lists."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dims))
    items = (centres[rng.integers(0, 200, n_items)] + rng.normal(size=(n_items, dims))).astype("f4")
    queries = rng.normal(size=(256, dims)).astype(np.float32)
    rows, reference = [], None
    for name, (n_bytes, vectors) in stored(items).items():
        index = recfuse.FusedIndex({"item": vectors()})
        took = seconds(lambda i=index: i.topk({"item": queries}, K))
        ids, _ = index.topk({"item": queries}, K)
        reference = ids if reference is None else reference
        plan = index.plan()
        held = plan["item_bytes"] + plan["rounded_bytes"]
        rows.append(
            [name, f"{n_bytes / 1e6:.1f}", f"{held / 1e6:.1f}", 1e3 * took, overlap(ids, reference)]
        )
    return rows


def main(
    data: shared.Data | None = None, *, epochs: int = 10, n_items: int = 200_000
) -> tuple[list[list[Any]], list[list[Any]]]:
    data = shared.load() if data is None else data
    network, _ = two_tower.train(data, epochs=epochs)
    of_encoders = encoders(two_tower.export(network, data), data)
    print(f"user tower, {len(data.profile)} users of {data.name}")
    header = ["weights", "kB", "ms", f"recall@{K}", "same lists"]
    print(shared.table(header, of_encoders), end="\n\n")
    of_items = catalogue(n_items)
    print(f"{n_items} generated items of 64 dimensions, 256 queries")
    print(shared.table(["stored as", "MB stored", "MB searched", "ms", "same lists"], of_items))
    return of_encoders, of_items


if __name__ == "__main__":
    main()
