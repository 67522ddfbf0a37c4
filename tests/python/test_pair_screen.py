"""The second screen, of single pairs in int16: the bytes of float32 where int8 leaves many open."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import recfuse
from helpers import assert_same_bytes
from recfuse import _core

N_ITEMS, N_QUERIES = 1500, 160  # of which a block leaves more open pairs than there are items


@pytest.fixture(params=["avx2", "avx512_vnni"], autouse=True)
def rounding_isa(request):
    """Run every test on the instruction sets that have this screen."""
    if request.param not in _core.available_isas():
        pytest.skip(f"this CPU has no {request.param}")
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield
    _core.set_isa(before)


def assert_screens_agree(search):
    """Compare int8, which this screen follows, with float32, which it does not."""
    results = []
    for screen in ("float32", "int8"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECFUSE_SCREEN", screen)
            results.append(search())
    assert_same_bytes(results[1], results[0])


def vectors(rng, kind, n, dim):
    """Rows whose scores int8 leaves open, each in its own way."""
    x = rng.standard_normal((n, dim))
    if kind.startswith("ties of"):
        x = rng.standard_normal(dim) + float(kind.split()[-1]) * x
    elif kind == "one huge coordinate":
        x[:, 0] = 300
    elif kind == "one huge item":
        x[n // 3] *= 1e6
    elif kind == "heavy tails":
        x = rng.standard_t(1.5, (n, dim)).clip(-1e9, 1e9)
    elif kind == "denormals":
        x[:, 1::2] *= 1e-40
        x[::3] *= 1e-12
    elif kind == "ends of the range":
        x = np.sign(x) * rng.choice([126.49, 126.51, 127], (n, dim))
        x[::2] *= 258.0078  # 32,767 / 127
    elif kind == "halves":
        x = np.round(127 * x) + 0.5
    elif kind == "equal rows":
        x[:] = x[:7].repeat(n // 7 + 1, axis=0)[:n]
    elif kind == "zero rows":
        x[rng.random(n) < 0.3] = 0
    return x.astype(np.float32)


KINDS = [
    "normal",
    "ties of 1e-2",
    "ties of 1e-3",
    "ties of 1e-4",
    "ties of 1e-6",
    "one huge coordinate",
    "one huge item",
    "heavy tails",
    "denormals",
    "ends of the range",
    "halves",
    "equal rows",
    "zero rows",
]


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_vector(rng, kind, metric, num_threads):
    items = {str(d): vectors(rng, kind, N_ITEMS, d) for d in (300, 37)}
    queries = {m: vectors(rng, kind, N_QUERIES, x.shape[1]) for m, x in items.items()}
    weights = {m: rng.standard_normal(N_QUERIES) for m in items}
    for k in (3, 40):
        assert_screens_agree(
            lambda k=k: recfuse.fuse_topk(
                queries, items, weights, k, metric=metric, num_threads=num_threads
            )
        )


@pytest.mark.parametrize("order", [1, -1])
def test_scores_that_rise_or_fall(rng, order):
    """Every item passes, or none after the first ones."""
    items, query = vectors(rng, "normal", N_ITEMS, 400), rng.standard_normal(400)
    items = items[np.argsort(order * (items @ query))]
    queries = (query + 0.05 * rng.standard_normal((N_QUERIES, 400))).astype(np.float32)
    for metric in ("dot", "cosine"):
        assert_screens_agree(lambda m=metric: recfuse.topk(queries, items, 60, metric=m))


@given(
    dims=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    k=st.integers(1, 100),
    scale=st.integers(-12, 12),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_every_shape(dims, k, scale, kind, seed):
    """Modalities of any size, some missing, some items excluded."""
    rng = np.random.default_rng(seed)
    items = {str(m): vectors(rng, kind, 400, d) for m, d in enumerate(dims)}
    items["0"] *= np.float32(10.0**scale)
    queries = {m: rng.standard_normal((70, x.shape[1])) for m, x in items.items()}
    present = {m: rng.random(400) < 0.7 for m in items}
    weights = {m: rng.standard_normal(70) * (rng.random(70) < 0.8) for m in items}
    weights["0"][sum(abs(w) for w in weights.values()) == 0] = 1  # not all of a query may be 0
    seen = sp.csr_array((rng.random((70, 400)) < 0.1).astype(np.float32))
    metric = ("dot", "cosine")[seed % 2]

    def search():
        index = recfuse.FusedIndex(items, metric=metric, present=present, num_threads=1 + seed % 2)
        return index.topk(queries, k, weights=weights, exclude=seen)

    assert_screens_agree(search)
