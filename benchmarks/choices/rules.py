"""Every fusion rule on one data set: quality on the test, milliseconds, bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

import recfuse
from choices.data import Modalities, Vectors
from choices.models import K
from recfuse.fusion import (
    CommonSpace,
    LinearFusion,
    StackingFusion,
    concatenate,
    fit_weights,
    suggest_fusion,
    weighted_average,
)

CANDIDATES = 100  # of the sum of z-scores, among which stacking and networks choose
Ids = NDArray[np.int32]
Search = Callable[[NDArray[np.intp]], Ids]  # lists of these users
# Of one fusion on one data set: how to search, and the bytes that it keeps.
Rule = tuple[Search, Callable[[], int]]


@dataclass(frozen=True)
class Candidates:
    """The first lists of users with something held out, and what every modality says of them."""

    users: NDArray[np.intp]
    ids: Ids
    parts: NDArray[np.float64]  # z-scores (n_users, CANDIDATES, n_modalities)
    similarities: NDArray[np.float64]
    hits: NDArray[np.bool_]


def measured(taught: Modalities, whole: Modalities) -> list[dict[str, Any]]:
    """Learn every rule on the validation, `taught`; measure it on the test, `whole`."""
    suggestion = suggest_fusion(
        taught.queries,
        taught.items,
        taught.wanted,
        k=K,
        similarity="dot",
        present=taught.present,
        exclude=taught.history,
    )
    index = _index(whole)
    rules: dict[str, Rule] = {}
    for option in suggestion.options:
        if option.name == "concatenated":
            rules[option.name] = _concatenated(whole)
        else:
            # An index each, so that each shows the bytes that it needs.
            rules[option.name] = _late(whole, _index(whole), option.arguments)
    rules.update(_learned(taught, whole, index))
    users = np.flatnonzero(np.diff(whole.wanted.indptr))
    return _table(rules, whole, users, suggestion.suggested.name)


def _index(of: Modalities) -> recfuse.FusedIndex:
    return recfuse.FusedIndex(of.items, metric="dot", present=of.present)


def _late(of: Modalities, index: recfuse.FusedIndex, arguments: dict[str, Any]) -> Rule:
    def search(users: NDArray[np.intp]) -> Ids:
        rows = {name: q[users] for name, q in of.queries.items()}
        ids: Ids = index.topk(rows, K, exclude=of.history[users], **arguments)[0]
        return ids

    return search, lambda: index_bytes(index)


def index_bytes(index: recfuse.FusedIndex) -> int:
    """Return the bytes of an index with what it made while it was asked."""
    handles = [index._handle, *(x for x in index._made.values() if hasattr(x, "plan"))]
    own = sum(matrix.nbytes for matrix in index._items.values())
    constant = 4 * index.n_items * ("with constant" in index._made)
    return own + constant + sum(handle.plan()["rounded_bytes"] for handle in handles)


def _one_index(of: Modalities, queries: Any, items: Any) -> Rule:
    index = recfuse.FusedIndex({"all": items}, metric="dot")

    def search(users: NDArray[np.intp]) -> Ids:
        ids: Ids = index.topk({"all": queries[users]}, K, exclude=of.history[users])[0]
        return ids

    return search, lambda: index_bytes(index)


def _concatenated(of: Modalities) -> Rule:
    return _one_index(of, concatenate(of.queries), concatenate(of.items, present=of.present))


def _common_space(of: Modalities) -> Rule:
    """Project what is known of items to 64 common directions, and average there."""
    wide = [name for name, x in of.items.items() if x.shape[1] > 1 and name != "friends"]
    blocks, asked = ({name: of_[name] for name in wide} for of_ in (of.items, of.queries))
    space = CommonSpace(dim=64).fit(blocks)
    items = weighted_average(space.transform(blocks), present=of.present)
    known = {name: q.any(axis=1) for name, q in asked.items()}
    queries = weighted_average(space.transform(asked), present=known)
    return _one_index(of, _unit(queries), _unit(items))


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1), np.float32)


def _learned(taught: Modalities, whole: Modalities, index: recfuse.FusedIndex) -> dict[str, Rule]:
    """Return the rules that are fitted on the candidates of the validation."""
    judged = np.flatnonzero(np.diff(taught.wanted.indptr))
    seen = _candidates(taught, _index(taught), judged)
    names = list(taught.queries)
    columns = {name: seen.similarities[..., m] for m, name in enumerate(names)}
    by_hand = fit_weights(columns, seen.hits, k=K).weights
    here = seen.ids.ravel() >= 0
    z = seen.parts.reshape(-1, len(names))[here]
    liked = seen.hits.ravel()[here].astype(np.float64)
    linear = LinearFusion(fit_intercept=True, nonnegative=True)
    linear.fit(dict(zip(names, z.T, strict=True)), liked)
    rows = np.repeat(seen.users, seen.ids.shape[1])[here]
    return {
        "fitted sum": _late(whole, _index(whole), {"weights": by_hand}),
        "linear, z-scores": _late(
            whole, _index(whole), {"normalise": "zscore", "weights": linear.weights_}
        ),
        "common space": _common_space(whole),
        "stacking": _stacking(whole, index, names, z, liked, rows),
        "deep, by ONNX": _deep(whole, index, z, liked, rows, taught),
    }


def _candidates(of: Modalities, index: recfuse.FusedIndex, users: NDArray[np.intp]) -> Candidates:
    rows: Vectors = {name: q[users] for name, q in of.queries.items()}
    ids, _, parts = index.topk(
        rows, CANDIDATES, normalise="zscore", exclude=of.history[users], contributions=True
    )
    flat = np.repeat(np.arange(len(users)), ids.shape[1])
    pairs = sp.csr_array(
        (np.ones(ids.size), (flat, np.maximum(ids, 0).ravel())), shape=(len(users), index.n_items)
    )
    _, found = index.score_pairs(rows, pairs)
    at = sp.csr_array((np.arange(1, pairs.nnz + 1), pairs.indices, pairs.indptr), shape=pairs.shape)
    order = np.asarray(at[flat, np.maximum(ids, 0).ravel()]).ravel() - 1
    similarities = found[order].reshape(*ids.shape, -1)
    hits = np.asarray(of.wanted[users][flat, np.maximum(ids, 0).ravel()]).reshape(ids.shape) > 0
    return Candidates(users, ids, np.nan_to_num(parts), similarities, hits & (ids >= 0))


def _stacking(
    of: Modalities,
    index: recfuse.FusedIndex,
    names: list[str],
    z: NDArray[np.float64],
    liked: NDArray[np.float64],
    groups: NDArray[np.intp],
) -> Rule:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(20, min_samples_leaf=200, random_state=0, n_jobs=1)
    stack = StackingFusion(forest, folds=3)
    stack.fit({name: z[:, [m]] for m, name in enumerate(names)}, liked, groups=groups)

    def search(users: NDArray[np.intp]) -> Ids:
        seen = _candidates(of, index, users)
        table = seen.parts.reshape(-1, len(names))
        scores = stack.predict({name: table[:, [m]] for m, name in enumerate(names)})
        return _first(seen.ids, scores.reshape(seen.ids.shape))

    trees = sum(
        tree.tree_.__getstate__()["nodes"].nbytes
        for model in stack.base_models_.values()
        for tree in model.estimators_
    )
    return search, lambda: index_bytes(index) + trees


def _deep(
    of: Modalities,
    index: recfuse.FusedIndex,
    z: NDArray[np.float64],
    liked: NDArray[np.float64],
    rows: NDArray[np.intp],
    taught: Modalities,
) -> Rule:
    """Train a network on the parts and the length of the history, and serve it by ONNX."""
    from sklearn.neural_network import MLPRegressor

    x = np.column_stack([z, _length(taught)[rows]])
    network = MLPRegressor(
        hidden_layer_sizes=(32, 16), max_iter=15, random_state=0, batch_size=1024
    )
    network.fit(x, liked)
    model = onnx_of(network, z.shape[1])
    ranker = recfuse.OnnxRanker(
        model, users={"history": _length(of).astype(np.float32)}, scores_input="parts"
    )

    def search(users: NDArray[np.intp]) -> Ids:
        query = {name: q[users] for name, q in of.queries.items()}
        ids, _, parts = index.topk(
            query, CANDIDATES, normalise="zscore", exclude=of.history[users], contributions=True
        )
        return ranker.rerank(ids, np.nan_to_num(parts), K, users=users)[0]

    return search, lambda: index_bytes(index) + len(model)


def _length(of: Modalities) -> NDArray[np.float64]:
    return np.log1p(np.diff(of.history.indptr))[:, None] / 5


def onnx_of(network: Any, n_parts: int) -> bytes:
    """Return scikit-learn's network with its inputs "parts" and "history" as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Concat", ["parts", "history"], ["x0"], axis=1)]
    constants = []
    last = len(network.coefs_) - 1
    for i, (w, b) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        constants.append(numpy_helper.from_array(w.astype(np.float32), f"w{i}"))
        constants.append(numpy_helper.from_array(b.astype(np.float32), f"b{i}"))
        out = "score" if i == last else f"sum{i}"
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"w{i}", f"b{i}"], [out]))
        if i < last:
            nodes.append(helper.make_node("Relu", [out], [f"x{i + 1}"]))
    kind = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(name, kind, ["n", width])
        for name, width in (("parts", n_parts), ("history", 1))
    ]
    outputs = [helper.make_tensor_value_info("score", kind, ["n", 1])]
    graph = helper.make_graph(nodes, "fusion", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _first(ids: Ids, scores: NDArray[np.float64]) -> Ids:
    order = np.argsort(np.where(ids >= 0, -scores, np.inf), axis=1, kind="stable")[:, :K]
    return np.take_along_axis(ids, order, axis=1)


def _gains(ids: Ids, wanted: sp.csr_array) -> NDArray[np.float64]:
    rows = np.repeat(np.arange(len(ids)), ids.shape[1])
    hits = np.asarray(wanted[rows, np.maximum(ids, 0).ravel()]).reshape(ids.shape) > 0
    discounts = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.cumsum(discounts)[np.minimum(np.diff(wanted.indptr), K) - 1]
    return np.asarray((hits & (ids >= 0)) @ discounts / ideal)


def _seconds(call: Callable[[], Any], n: int) -> float:
    spent = []
    for _ in range(n):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _table(
    rules: dict[str, Rule], of: Modalities, users: NDArray[np.intp], suggested: str
) -> list[dict[str, Any]]:
    wanted = of.wanted[users]
    gains, rows = {}, []
    for name, (search, n_bytes) in rules.items():
        gains[name] = _gains(search(users), wanted)
        batch = _seconds(lambda s=search: s(users), 3) / len(users)
        turn = iter(np.resize(users, 40))
        one = _seconds(lambda s=search, turn=turn: s(np.array([next(turn)])), 40)
        rows.append(
            {
                "rule": name,
                "ndcg": float(gains[name].mean()),
                "batch_ms": 1e3 * batch,
                "one_ms": 1e3 * one,
                "bytes": n_bytes(),
                "suggested": name == suggested,
            }
        )
    best = max(gains, key=lambda name: gains[name].mean())
    for row in rows:
        lost = gains[best] - gains[row["rule"]]
        row["behind"] = float(lost.mean())
        row["error"] = float(lost.std(ddof=1) / np.sqrt(len(lost)))
        row["n_users"] = len(users)
    return sorted(rows, key=lambda row: -row["ndcg"])
