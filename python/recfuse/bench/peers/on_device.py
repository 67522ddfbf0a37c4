"""What people use on a GPU today: PyTorch, CuPy, and the GPU module of implicit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recfuse.bench.case import Answer, Contender, Inputs, Ready, ids_and_scores
from recfuse.bench.exclusions import excluded_items
from recfuse.bench.interactions import user_items
from recfuse.bench.peers.factorisation import ALPHA, REGULARIZATION
from recfuse.bench.peers.sparse import neighbour_lists
from recfuse.bench.steps import Steps

if TYPE_CHECKING:
    from recfuse.bench.cases.als import Als
    from recfuse.bench.cases.cosine_knn import CosineKnn
    from recfuse.bench.cases.dense import DenseCase
    from recfuse.bench.device import DeviceInputs

__all__ = ["als_peers_on_device", "dense_peers_on_device", "sparse_peers_on_device"]

_SCORE_BYTES = 8 << 30  # of a block of scores
_PRODUCT_BYTES = 2 << 30  # of a block of cosines, dense


def dense_peers_on_device() -> list[Contender]:
    """Return a product and a selection by PyTorch, in three types, and by CuPy."""
    once = "items side by side, unit length, on the device"
    by_torch = "queries weighted and side by side, matmul, torch.topk, in blocks that fit"
    return [
        Contender("PyTorch float32", "torch", "torch", _torch_float32, once, by_torch),
        Contender("PyTorch tf32", "torch", "torch", _torch_tf32, once, by_torch, exact=False),
        Contender("PyTorch float16", "torch", "torch", _torch_float16, once, by_torch, exact=False),
        Contender(
            "CuPy",
            "cupy",
            "cupy",
            _cupy_search,
            once,
            "queries weighted and side by side, matmul, argpartition, sort of the k",
            obstacle=_cupy_obstacle,
        ),
    ]


def sparse_peers_on_device() -> list[Contender]:
    """Return the product of sparse matrices and a selection by CuPy."""
    return [
        Contender(
            "CuPy",
            "cupy",
            "cupy",
            _cupy_neighbours,
            "the item-user matrix in CSR, on the device",
            "rows to unit length, products of sparse blocks of rows, argpartition of every row",
            obstacle=_cupy_obstacle,
        )
    ]


def als_peers_on_device() -> list[Contender]:
    """Return the GPU module of implicit."""
    return [
        Contender(
            "implicit's GPU module",
            "implicit",
            "implicit",
            _implicit,
            "implicit.gpu.als up to its third iteration, three steps of its conjugate gradients",
            "the next iteration",
            obstacle=_implicit_obstacle,
        )
    ]


def _cupy_obstacle() -> str | None:
    try:
        import cupy

        n = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # a library of CUDA that it cannot load, for example
        return f"CuPy does not work here: {type(error).__name__}: {error}"[:200]
    return None if n else "CuPy finds no GPU"


def _implicit_obstacle() -> str | None:
    try:
        import implicit.gpu
    except Exception as error:
        return f"implicit's GPU module does not load: {type(error).__name__}: {error}"[:200]
    if implicit.gpu.HAS_CUDA:
        return None
    return "implicit's GPU module is off: " + (
        "it finds no GPU" if implicit.gpu.HAS_RMM else "it needs rmm"
    )


def _side_by_side(case: DenseCase, inputs: DeviceInputs, kind: str) -> Any:
    """Return items, or queries times their weights, as one matrix on the device."""
    import torch

    parts = case.modalities(inputs.there, kind)
    if case.metric == "cosine":
        parts = {m: x / x.norm(dim=1, keepdim=True) for m, x in parts.items()}
    if kind == "queries":
        for m, weights in case.options(inputs).get("weights", {}).items():
            column = torch.from_numpy(np.asarray(weights, np.float32)).to(inputs.torch_device)
            parts[m] = parts[m] * column[:, None]
    several = list(parts.values())
    return several[0] if len(several) == 1 else torch.cat(several, dim=1)


def _items(case: DenseCase, inputs: DeviceInputs) -> Any:
    return inputs.once("items side by side", lambda: _side_by_side(case, inputs, "items"))


def _torch_float32(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    return _by_torch(case, inputs, "float32")


def _torch_tf32(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    return _by_torch(case, inputs, "float32", tf32=True)


def _torch_float16(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    return _by_torch(case, inputs, "float16")


def _by_torch(case: DenseCase, inputs: DeviceInputs, type_: str, *, tf32: bool = False) -> Ready:
    import torch

    dtype = getattr(torch, type_)
    items = _items(case, inputs).to(dtype)
    block = max(1, _SCORE_BYTES // (items.element_size() * len(items)))
    left_out = _excluded_entries(case, inputs)

    def search() -> tuple[Any, Any]:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        queries = _side_by_side(case, inputs, "queries").to(dtype)
        found = []
        for start in range(0, len(queries), block):
            product = queries[start : start + block] @ items.T
            if left_out is not None:
                rows, columns = left_out
                here = (rows >= start) & (rows < start + block)
                product[rows[here] - start, columns[here]] = -torch.inf
            found.append(torch.topk(product, case.k))
        return torch.cat([top.indices for top in found]), torch.cat([top.values for top in found])

    return Ready(search, ids_and_scores)


def _excluded_entries(case: DenseCase, inputs: DeviceInputs) -> tuple[Any, Any] | None:
    """Return rows and columns of what is excluded, on the device."""
    import torch

    if not case.n_excluded:
        return None
    excluded = excluded_items(inputs).tocoo()
    rows, columns = (
        torch.from_numpy(x.astype(np.int64)).to(inputs.torch_device)
        for x in (excluded.row, excluded.col)
    )
    return rows, columns


def _cupy_search(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    import cupy

    items, k = cupy.asarray(_items(case, inputs)), case.k
    block = max(1, _SCORE_BYTES // (4 * 8 * len(items)))  # indices are int64, sorted with copies
    left_out = _excluded_entries(case, inputs)
    excluded = None if left_out is None else [cupy.asarray(x) for x in left_out]

    def search() -> tuple[Any, Any]:
        queries = cupy.asarray(_side_by_side(case, inputs, "queries"))
        ids, scores = [], []
        for start in range(0, len(queries), block):
            product = queries[start : start + block] @ items.T
            if excluded is not None:
                rows, columns = excluded
                here = (rows >= start) & (rows < start + block)
                product[rows[here] - start, columns[here]] = -cupy.inf
            best = cupy.argpartition(product, len(items) - k, axis=1)[:, -k:]
            values = cupy.take_along_axis(product, best, axis=1)
            order = cupy.argsort(-values, axis=1)
            ids.append(cupy.take_along_axis(best, order, axis=1))
            scores.append(cupy.take_along_axis(values, order, axis=1))
        return cupy.concatenate(ids), cupy.concatenate(scores)

    return Ready(search, lambda found: ids_and_scores([x.get() for x in found]))


def _cupy_neighbours(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    import cupy
    from cupyx.scipy.sparse import csr_matrix

    items = csr_matrix(sp.csr_matrix(user_items(inputs).T))
    k = min(case.k + 1, case.n_items)
    block = max(1, _PRODUCT_BYTES // (4 * 8 * case.n_items))

    def search() -> tuple[Any, Any]:
        squares = cupy.asarray(items.multiply(items).sum(axis=1)).ravel()
        inverse = 1 / cupy.sqrt(cupy.maximum(squares, 1e-30))
        # Not by cupy.repeat, which wants the counts on the host.
        rows = cupy.searchsorted(items.indptr, cupy.arange(items.nnz), side="right") - 1
        units = csr_matrix((items.data * inverse[rows], items.indices, items.indptr), items.shape)
        transposed = units.T.tocsr()
        ids, cosines = [], []
        for start in range(0, case.n_items, block):
            product = (units[start : start + block] @ transposed).toarray()
            best = cupy.argpartition(product, case.n_items - k, axis=1)[:, -k:]
            ids.append(best)
            cosines.append(cupy.take_along_axis(product, best, axis=1))
        return cupy.concatenate(ids), cupy.concatenate(cosines)

    def answer(found: Any) -> Answer:
        ids, cosines = (x.get() for x in found)
        indptr = np.arange(len(ids) + 1) * k
        csr = sp.csr_array((cosines.ravel(), ids.ravel(), indptr), shape=(len(ids), len(ids)))
        return neighbour_lists(csr, case.k)

    return Ready(search, answer)


def _implicit(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    import implicit.gpu
    from implicit.gpu.als import AlternatingLeastSquares

    confidence = sp.csr_matrix(user_items(inputs))
    # Its stored values are the confidences themselves; recfuse's are 1 + alpha * r.
    confidence.data = 1 + ALPHA * confidence.data
    model = AlternatingLeastSquares(
        factors=case.factors, regularization=REGULARIZATION, iterations=1 << 30
    )
    model.user_factors = implicit.gpu.Matrix(inputs["start_users"])
    model.item_factors = implicit.gpu.Matrix(inputs["start_items"])

    def fit(callback: Any) -> Any:
        return model.fit(confidence, show_progress=False, callback=callback)

    def answer(_: Any) -> Answer:
        return {"users": model.user_factors.to_numpy(), "items": model.item_factors.to_numpy()}

    return Ready(Steps(fit), answer)
