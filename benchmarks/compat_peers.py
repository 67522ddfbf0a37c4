"""recfuse.compat.sparse_dot_topn and recfuse.compat.faiss against their originals, call by call.

``python benchmarks/compat_peers.py measure sparse_dot_topn`` (or ``faiss``) times both libraries in
turn, in one process for each environment of the peer, and writes ``results/compat-<library>.json``;
``... table`` puts both into ``docs/compat.md``. ``--case 0 --case 3`` measures some cases again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.machine import describe_machine, git_describe, openblas_core

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "compat.md"
ROUNDS = 5
LEAST = 0.2  # seconds of a sample: shorter calls are repeated, and their mean counts

NAMES = {"data": "names", "n": 10_000, "top_n": 10, "threshold": None, "sort": True}
ITEMS = NAMES | {"data": "items", "n": 10_000, "top_n": 50}
SPARSE = [
    {**what, "dtype": dtype, "threads": threads}
    for what, threads in (
        (NAMES, 1),
        (NAMES, 2),
        (NAMES | {"threshold": 0.5}, 1),
        (NAMES | {"sort": False}, 1),
        (ITEMS, 1),
        (ITEMS, 2),
    )
    for dtype in ("float32", "float64")
]
DENSE = [
    {"metric": metric, "q": q, "n": 50_000, "d": 128, "k": k, "threads": threads}
    for metric in ("IP", "L2")
    for q, threads in ((1000, 1), (1000, 2), (1, 1))
    for k in (10, 100)
]
CASES = {"sparse_dot_topn": SPARSE, "faiss": DENSE}


def names(n: int) -> sp.csr_matrix:
    """Return TF-IDF rows of the 3-grams of generated names of companies, of length one."""
    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bcdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    forms = ["inc", "ltd", "gmbh", "corp", "group", "holdings", "services", "company", ""]
    words = ["".join(rng.choice(syllables, rng.integers(2, 4))) for _ in range(n // 2)]
    terms: dict[str, int] = {}
    rows, columns = [], []
    for row in range(n):
        chosen = rng.choice(words, rng.integers(1, 4))
        name = f" {' '.join(chosen)} {forms[rng.integers(len(forms))]} "
        grams = {name[i : i + 3] for i in range(len(name) - 2)}
        rows += [row] * len(grams)
        columns += [terms.setdefault(gram, len(terms)) for gram in sorted(grams)]
    counts = np.bincount(columns)
    matrix = sp.csr_matrix((np.ones(len(rows)), (rows, columns)))
    matrix.data = (np.log((1 + n) / (1 + counts)) + 1)[matrix.indices]
    return unit_rows(matrix)


def items(n: int) -> sp.csr_matrix:
    """Return items by users, with long tails, of length one."""
    return unit_rows(sp.csr_matrix(user_items(draw_interactions(20_000, n, 500_000, 0)).T))


def unit_rows(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return the rows at length one, in float64."""
    matrix = matrix.astype(np.float64)
    squares = np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    scale = 1 / np.sqrt(np.maximum(squares, 1e-300))
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr))
    return matrix


def sparse_calls(case: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return the same call of both libraries."""
    import sparse_dot_topn

    import recfuse.compat.sparse_dot_topn as ours

    a = {"names": names, "items": items}[case["data"]](case["n"]).astype(case["dtype"])
    b = a.T.tocsr()
    how = {"threshold": case["threshold"], "sort": case["sort"], "n_threads": case["threads"]}
    return {
        name: lambda module=module: module.sp_matmul_topn(a, b, case["top_n"], **how)
        for name, module in (("recfuse", ours), ("peer", sparse_dot_topn))
    }


def same_sparse(ours: Any, peer: Any, case: dict[str, Any]) -> bool:
    """Whether the values are equal, row by row: of equal ones, either may have been kept."""
    if not np.array_equal(ours.indptr, peer.indptr):
        return False
    rows = np.repeat(np.arange(ours.shape[0]), np.diff(ours.indptr))
    a, b = (m.data[np.lexsort((m.data, rows))] for m in (ours, peer))
    # The peer adds up thousands of float32 in float32: cosines of 1 come out as 0.99994.
    return bool(np.allclose(a, b, rtol=1e-4 if case["dtype"] == "float32" else 1e-12, atol=0))


def dense_calls(case: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return the same search of both libraries, its index built."""
    import faiss

    import recfuse.compat.faiss as ours
    from recfuse.backend import resolve_backend

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((case["n"], case["d"])).astype(np.float32)
    queries = rng.standard_normal((case["q"], case["d"])).astype(np.float32)
    faiss.omp_set_num_threads(case["threads"])
    resolve_backend("cpu").ops.set_default_num_threads(case["threads"])
    if os.environ.get("RECFUSE_BENCH_BLAS"):
        faiss.cvar.distance_compute_blas_threshold = 1
    calls: dict[str, Callable[[], Any]] = {}
    for name, module in (("recfuse", ours), ("peer", faiss)):
        index = getattr(module, f"IndexFlat{case['metric']}")(case["d"])
        index.add(vectors)
        calls[name] = lambda index=index: index.search(queries, case["k"])
    return calls


def same_dense(ours: Any, peer: Any, case: dict[str, Any]) -> bool:
    """Whether the ids are equal but where float32 of the peer swaps what is close."""
    close = np.allclose(ours[0], peer[0], rtol=1e-4, atol=1e-3 * case["d"] / 128)
    return bool(close and (ours[1] == peer[1]).mean() > 0.999)


def sample(call: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of a call, the mean of some."""
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def measure(library: str, case: dict[str, Any]) -> dict[str, Any]:
    """Time both libraries in turn, once their answers are equal."""
    calls = (sparse_calls if library == "sparse_dot_topn" else dense_calls)(case)
    same = same_sparse if library == "sparse_dot_topn" else same_dense
    if not same(calls["recfuse"](), calls["peer"](), case):
        raise SystemExit(f"answers differ: {case}")
    repeats = {name: max(1, int(LEAST / sample(call, 1))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS):
        for name in sorted(calls, reverse=turn % 2 == 1):
            time.sleep(0.1)  # threads of OpenMP and OpenBLAS spin before they sleep
            times[name].append(sample(calls[name], repeats[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"case": case, "seconds": medians}


def environments(library: str, case: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return how the peer is started: as installed, and as it is known to be faster."""
    threads = {"OMP_NUM_THREADS": str(case["threads"]), "OPENBLAS_NUM_THREADS": "1"}
    if library == "sparse_dot_topn":
        return {"as installed": threads}
    # FAISS multiplies by its BLAS, outside of its own threads.
    threads["OPENBLAS_NUM_THREADS"] = str(case["threads"])
    found = {"as installed": threads}
    core = openblas_core()
    if core is not None:
        found[f"OPENBLAS_CORETYPE={core}"] = threads | {"OPENBLAS_CORETYPE": core}
        if case["q"] < 20:  # where FAISS would not call BLAS by itself
            tuned = threads | {"OPENBLAS_CORETYPE": core, "RECFUSE_BENCH_BLAS": "1"}
            found[f"OPENBLAS_CORETYPE={core}, BLAS"] = tuned
    return found


def measure_best(library: str, number: int) -> dict[str, Any]:
    """Return the measurement of the environment in which the peer is fastest."""
    best: dict[str, Any] = {}
    for name, variables in environments(library, CASES[library][number]).items():
        command = [sys.executable, __file__, "one", library, "--case", str(number)]
        out = subprocess.run(
            command, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        found = json.loads(out.splitlines()[-1]) | {"peer": name}
        if not best or found["seconds"]["peer"] < best["seconds"]["peer"]:
            best = found
    return best


def described(library: str, case: dict[str, Any]) -> str:
    """Return the cells of a case."""
    if library == "faiss":
        what = f"`IndexFlat{case['metric']}` q{case['q']} n{case['n']} d{case['d']} k{case['k']}"
        return f"{what} | {case['threads']}"
    limit = "" if case["threshold"] is None else f", above {case['threshold']}"
    order = "" if case["sort"] else ", unsorted"
    return (
        f"{case['n']:,} {case['data']}, top {case['top_n']}{limit}{order} | {case['dtype']} | "
        f"{case['threads']}"
    )


def table(library: str, result: dict[str, Any]) -> str:
    """Return the cases as a table: recfuse's times, and the peer's as multiples of them."""
    first = "index" if library == "faiss" else "matrix times its transpose | values"
    rule = "|---" * (first.count("|") + 5) + "|"
    lines = [f"| {first} | threads | recfuse | {library} | times as fast |", rule]
    for row in result["cases"]:
        mine, peer = row["seconds"]["recfuse"], row["seconds"]["peer"]
        how = "" if row["peer"] == "as installed" else f" ({row['peer']})"
        cells = f"{described(library, row['case'])} | {shown(mine)} | {shown(peer)}{how}"
        lines.append(f"| {cells} | {peer / mine:.1f}x |")
    machine, versions = result["machine"], result["versions"]
    lines += [
        "",
        f"{machine['cores']} cores of an {machine['cpu']}, {machine['isa']}; generated data; "
        f"answers equal; {ROUNDS} rounds in turn, medians. {library} {versions['peer']}, "
        f"{result['date']} (`benchmarks/results/compat-{library.replace('_', '-')}.json`).",
    ]
    return "\n".join(lines) + "\n"


def shown(value: float) -> str:
    """Return a time for people."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def result_of(library: str) -> Path:
    """Return where the measurements of a library are kept."""
    return HERE / "results" / f"compat-{library.replace('_', '-')}.json"


def with_table(text: str, library: str, made: str) -> str:
    """Return a document with the table between its marks."""
    begin, end = f"<!-- speed of {library} -->\n", f"<!-- /speed of {library} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}{made}{end}{rest.split(end)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["measure", "one", "table"])
    parser.add_argument("library", nargs="?", choices=list(CASES))
    parser.add_argument("--case", type=int, action="append")
    arguments = parser.parse_args()
    if arguments.what == "table":
        for library in CASES:
            text = DOCUMENT.read_text(encoding="utf-8")
            made = table(library, json.loads(result_of(library).read_text(encoding="utf-8")))
            DOCUMENT.write_text(with_table(text, library, made), encoding="utf-8")
        return
    library = arguments.library
    if library is None:
        parser.error("name a library")
    if arguments.what == "one":
        print(json.dumps(measure(library, CASES[library][arguments.case[0]])))
        return
    import importlib.metadata

    path = result_of(library)
    known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else []
    for number in range(len(CASES[library])) if arguments.case is None else arguments.case:
        found = measure_best(library, number)
        print(described(library, found["case"]), found["seconds"], found["peer"], flush=True)
        known = [row for row in known if row["case"] != found["case"]] + [found]
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": describe_machine(os.cpu_count() or 1),
            "source": git_describe(),
            "versions": {
                "peer": importlib.metadata.version(
                    {"faiss": "faiss-cpu", "sparse_dot_topn": "sparse-dot-topn"}[library]
                ),
                "numpy": np.__version__,
                "scipy": importlib.metadata.version("scipy"),
            },
            "cases": sorted(known, key=lambda row: CASES[library].index(row["case"])),
        }
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
