"""recfuse.compat.implicit against formulas in float64, NumPy's own, written out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse.compat
from recfuse.compat.implicit import als

AlternatingLeastSquares = als.AlternatingLeastSquares
LEAST = -np.finfo(np.float32).max


def random_plays(rng, shape=(40, 30), density=0.2, low=1.0, high=5.0):
    dense = np.where(rng.random(shape) < density, rng.uniform(low, high, shape), 0)
    return sp.csr_matrix(dense.astype(np.float32))


def exact_half_step(confidences, others, regularization):
    """Solve each row's normal equations, c being 1 where nothing is stored."""
    c = confidences.toarray().astype(np.float64)
    stored = np.zeros(c.shape, bool)
    stored[confidences.nonzero()] = True
    y = np.asarray(others, np.float64)
    out = np.zeros((len(c), y.shape[1]))
    for u in range(len(c)):
        if stored[u].any():
            weight = np.where(stored[u], np.abs(c[u]), 1.0)
            target = np.where(c[u] > 0, c[u], 0.0)
            system = (y * weight[:, None]).T @ y + regularization * np.eye(y.shape[1])
            out[u] = np.linalg.solve(system, target @ y)
    return out


@pytest.mark.parametrize("low", [1.0, 0.05, -3.0])  # at least 1; below 1; dislikes, too
@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_a_fit_alternates_exact_solutions_of_implicits_objective(rng, low, alpha):
    plays = random_plays(rng, low=low)
    model = AlternatingLeastSquares(
        factors=5, regularization=0.3, alpha=alpha, use_cg=False, iterations=4, random_state=7
    )
    model.fit(plays, show_progress=False)
    start = np.random.default_rng(7)
    start.random((40, 5), dtype=np.float32)
    items = start.random((30, 5), dtype=np.float32) * np.float32(0.01)
    c = (plays * np.float32(alpha)).tocsr()
    for _ in range(4):
        users = exact_half_step(c, items, 0.3)
        items = exact_half_step(c.T.tocsr(), users, 0.3)
    np.testing.assert_allclose(model.user_factors, users, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(model.item_factors, items, rtol=2e-3, atol=2e-4)


def test_patch_makes_a_program_use_ours_and_can_be_undone():
    program = """
import sys, recfuse.compat
with recfuse.compat.patch("implicit"):
    import implicit
    from implicit.als import AlternatingLeastSquares
    from implicit.cpu.topk import topk
    import implicit.gpu
    assert AlternatingLeastSquares.__module__ == "recfuse.compat.implicit.als"
    assert implicit.als.AlternatingLeastSquares is AlternatingLeastSquares
    assert implicit.__version__ == "0.7.3" and not implicit.gpu.HAS_CUDA
assert not [name for name in sys.modules if name.split(".")[0] == "implicit"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_patch_refuses_a_library_that_is_there_already_and_one_it_does_not_know(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit", sys)
    with pytest.raises(ImportError, match="implicit must not be imported before"):
        recfuse.compat.patch("implicit")
    with pytest.raises(ValueError, match=r"name must be one of .*implicit.*; got 'lightfm'"):
        recfuse.compat.patch("lightfm")
