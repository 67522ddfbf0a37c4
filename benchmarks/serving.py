"""Latencies of a pipeline: MiniLM (int8) on texts, factors that requests bring, fusion and top-k.

``python benchmarks/serving.py [--items N]`` prints the table of docs/serving.md: medians over
repeated calls, in milliseconds, after a warm-up, of every stage.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import recfuse
from recfuse import datasets, features
from recfuse.serving import Pipeline

WORDS = ["a", "film", "about", "the", "sea", "two", "friends", "who", "travel", "home", "winter"]
DIM = 64
SECONDS = 4.0  # of each row of the table


def texts(rng: np.random.Generator, n: int) -> list[str]:
    """Return n queries of 3 to 12 words."""
    return [" ".join(rng.choice(WORDS, rng.integers(3, 13))) for _ in range(n)]


def make(n_items: int, rng: np.random.Generator) -> Pipeline:
    """Return a pipeline over items of random vectors: a search takes as long as with real ones."""
    made = datasets.minilm()
    encoder = features.minilm(made.model, made.tokenizer, device="cpu")
    text = rng.standard_normal((n_items, 384), np.float32)
    items = {"text": text, "behaviour": rng.standard_normal((n_items, DIM), np.float32)}
    return Pipeline(items, {"text": encoder}, device="cpu", k=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    n_items = parser.parse_args().items
    rng = np.random.default_rng(0)
    pipeline = make(n_items, rng)
    print(f"{n_items:,} items, dims 384 + {DIM}, k=10, {recfuse.doctor()['threads']} threads, ms\n")
    print("| requests in a call | encode | fuse + top-k | the rest | total | per request |")
    print("|---|---|---|---|---|---|")
    for n in (1, 8, 64, 256):
        requests = {"text": texts(rng, n), "behaviour": rng.standard_normal((n, DIM), np.float32)}
        pipeline.warm_up(requests)
        runs, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(runs) < 3:
            runs.append(pipeline.topk(requests, return_timings=True)[-1])
        stages = [
            (t.encode["text"], t.search, t.total - t.encode["text"] - t.search, t.total)
            for t in runs
        ]
        encode, search, rest, total = (
            1000 * statistics.median(values) for values in zip(*stages, strict=True)
        )
        print(f"| {n} | {encode:.1f} | {search:.1f} | {rest:.2f} | {total:.1f} | {total / n:.1f} |")


if __name__ == "__main__":
    main()
