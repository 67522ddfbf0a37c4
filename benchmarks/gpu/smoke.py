"""Small searches and fits on a GPU that meet every kernel: against NumPy first, then the CPU.

    python benchmarks/gpu/smoke.py [--rehearse]

Quick enough for compute-sanitizer, which makes kernels a hundred times slower.
"""

from __future__ import annotations

import sys

import numpy as np
import scipy.sparse as sp

import recfuse
from recfuse.bench.device import rehearse
from recfuse.ops import neighbour_topk

N_ITEMS = 700


def of_numpy() -> None:
    """Hold one plain search against float64 in NumPy: the first thing to go wrong."""
    rng = np.random.default_rng(1)
    queries, items = (rng.standard_normal((n, 48), dtype=np.float32) for n in (5, N_ITEMS))
    ids, scores = recfuse.topk(queries, items, 9, device="cuda")
    exact = queries.astype(np.float64) @ items.T.astype(np.float64)
    best = np.argsort(-exact, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(ids, best)
    np.testing.assert_allclose(scores, np.take_along_axis(exact, best, 1), rtol=1e-6)
    print("a search gives the lists of NumPy", flush=True)


def of_the_cpu() -> None:
    """Search in all the ways there are: few queries and many, screened or not, pairs."""
    rng = np.random.default_rng(0)
    items = {
        name: rng.standard_normal((N_ITEMS, d), dtype=np.float32)
        for name, d in (("a", 40), ("b", 70))
    }
    items["a"][5] = np.inf  # no screen can judge it
    items["b"][100:400] = items["b"][100]  # ties: more candidates than expected
    present = {"b": rng.random(N_ITEMS) < 0.7}
    indexes = [recfuse.FusedIndex(items, present=present, device=d) for d in ("cuda", "cpu")]
    for n_queries in (3, 70):
        queries = {
            name: rng.standard_normal((n_queries, matrix.shape[1]), dtype=np.float32)
            for name, matrix in items.items()
        }
        weights = {name: rng.uniform(0.1, 1, n_queries) for name in items}
        for fusion in ("sum", "max"):
            for k in (5, 300):
                options = {"k": k, "weights": weights, "fusion": fusion, "contributions": True}
                found = [index.topk(queries, **options) for index in indexes]
                for ours, theirs in zip(*found, strict=True):
                    assert ours.tobytes() == theirs.tobytes(), (n_queries, fusion, k)
    print("the same bytes as the CPU", flush=True)


def of_similar_rows() -> None:
    """Find similar rows by all kinds of sums: counts, whole and real weights, co-rated norms."""
    rng = np.random.default_rng(0)
    matrix = sp.csr_array(
        (rng.random((N_ITEMS, 90)) < 0.05) * rng.random((N_ITEMS, 90), dtype=np.float32)
    )
    for values, norm in (
        ("ones", "full"),
        ("whole", "full"),
        ("real", "full"),
        ("real", "corated"),
    ):
        weights = {"ones": np.ones_like(matrix.data), "whole": np.ceil(5 * matrix.data)}
        weighted = sp.csr_array(
            (weights.get(values, matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        for k in (7, 400):
            found = [recfuse.cosine_knn(weighted, k, norm=norm, device=d) for d in ("cuda", "cpu")]
            for ours, theirs in zip(*((x.indptr, x.indices, x.data) for x in found), strict=True):
                assert ours.tobytes() == theirs.tobytes(), (values, norm, k)
    print("the similar rows of the CPU", flush=True)


def of_neighbours() -> None:
    """Make lists of similar rows, sums and means."""
    rng = np.random.default_rng(0)
    similar = recfuse.cosine_knn(sp.csr_array((rng.random((90, N_ITEMS)) < 0.1) * 1.0), 20)
    histories = sp.csr_array((rng.random((50, 90)) < 0.2) * rng.random((50, 90)))
    for normalise in (False, True):
        found = [
            neighbour_topk(histories, similar, 9, normalise=normalise, device=d)
            for d in ("cuda", "cpu")
        ]
        for ours, theirs in zip(*found, strict=True):
            assert ours.tobytes() == theirs.tobytes(), normalise
    print("the lists of neighbours of the CPU", flush=True)


def of_ranges() -> None:
    """Search items that one device has in two ranges, as several would."""
    rng = np.random.default_rng(0)
    queries, items = ({"a": rng.standard_normal((n, 40), dtype=np.float32)} for n in (70, N_ITEMS))
    found = [
        recfuse.FusedIndex(items, device=device).topk(queries, 30) for device in ("cuda:0,0", "cpu")
    ]
    for ours, theirs in zip(*found, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    print("the same bytes from two ranges", flush=True)


def of_solvers() -> None:
    """Factorise in all the ways there are: a row of many parts, shared memory or not, float64."""
    rng = np.random.default_rng(0)
    likes = rng.random((20, 4_500)) < np.append(1.0, np.full(19, 0.02))[:, None]
    matrix = sp.csr_array(likes.astype(np.float32))
    small, alike = matrix[:, :60], sp.csr_array(np.ones((70, 90), np.float32))
    for fitted, solver, options in (
        (matrix, "cholesky", {"factors": 18}),
        (matrix, "cholesky", {"factors": 5, "objective": "explicit", "biases": True}),
        (small, "cholesky", {"factors": 240, "regularization": 1.0}),
        (alike, "cholesky", {"factors": 30, "objective": "explicit", "regularization": 1e-6}),
        (small, "block", {"factors": 70}),
        (small, "cg", {"factors": 30, "objective": "explicit", "cg_steps": 40}),
    ):
        models = [
            recfuse.AlternatingLeastSquares(
                solver=solver, iterations=1, compute_loss=True, random_state=0, device=device,
                **options,
            ).fit(fitted)
            for device in ("cuda", "cpu")
        ]  # fmt: skip
        losses = [model.loss_ for model in models]
        np.testing.assert_allclose(*losses, rtol=1e-4, atol=1e-4, err_msg=str(options))
        in_float64 = [model.float64_rows_ > 0 for model in models]
        assert in_float64 == [fitted is alike] * 2, options
    print("the objective of the CPU", flush=True)


if __name__ == "__main__":
    if "--rehearse" in sys.argv:
        rehearse()
    of_numpy()
    of_the_cpu()
    of_ranges()
    of_similar_rows()
    of_neighbours()
    of_solvers()
