"""recfuse.compat.implicit: the patch, and ALS against implicit's objective in float64."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse.compat
from compat_data import exact_half_step, exact_loss, random_plays
from recfuse.compat.implicit import als, approximate_als, bpr, lmf
from recfuse.compat.implicit.cpu import als as cpu_als
from recfuse.compat.implicit.recommender_base import ModelFitError
from recfuse.compat.implicit.utils import (
    ParameterWarning,
    augment_inner_product_matrix,
    check_random_state,
    nonzeros,
)
from recfuse.errors import DeviceError, FormatError, NotFittedError

AlternatingLeastSquares = als.AlternatingLeastSquares


@pytest.fixture
def plays(rng):
    return random_plays(rng)


@pytest.fixture
def model(plays):
    made = AlternatingLeastSquares(factors=4, regularization=0.1, alpha=2.0, random_state=3)
    made.fit(plays, show_progress=False)
    return made


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
    assert recfuse.compat.patch("implicit").name == "implicit"  # again: no error
assert not [name for name in sys.modules if name.split(".")[0] == "implicit"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_patch_refuses_a_library_that_is_there_already_and_one_it_does_not_know(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit", sys)
    with pytest.raises(ImportError, match="implicit must not be imported before"):
        recfuse.compat.patch("implicit")
    with pytest.raises(ValueError, match=r"name must be one of .*implicit.*; got 'lightfm'"):
        recfuse.compat.patch("lightfm")


def test_importing_the_drop_in_needs_nothing_but_numpy_and_scipy():
    program = """
import sys
sys.modules.update(dict.fromkeys(["tqdm", "implicit", "threadpoolctl", "sklearn", "pandas"]))
import numpy as np, scipy.sparse as sp, recfuse.compat.implicit as implicit
model = implicit.als.AlternatingLeastSquares(factors=2)
model.fit(sp.csr_matrix(np.eye(4)))  # with its bar, by default
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


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


@pytest.mark.parametrize("stored", [1.0, 0.0])  # c = 1, which is no confidence more; a stored zero
def test_stored_ones_are_likes_and_stored_zeros_take_an_entry_out(rng, stored):
    plays = random_plays(rng, (12, 9), low=2.0)
    plays.data[::3] = stored
    items = rng.random((9, 3), dtype=np.float32)
    model = AlternatingLeastSquares(factors=3, regularization=0.2)
    model.item_factors, model.user_factors = items, np.zeros((12, 3), np.float32)
    c = plays.toarray().astype(np.float64)
    pattern = np.zeros(c.shape, bool)
    rows = np.repeat(np.arange(12), np.diff(plays.indptr))
    pattern[rows, plays.indices] = True
    y = items.astype(np.float64)
    for u, x in enumerate(model.recalculate_user(np.arange(12), plays)):
        system = (y * np.where(pattern[u], c[u], 1.0)[:, None]).T @ y + 0.2 * np.eye(3)
        expected = np.linalg.solve(system, c[u] @ y) if pattern[u].any() else np.zeros(3)
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_cg", [True, False])
def test_the_loss_falls_and_is_the_objective_of_the_factors(rng, use_cg):
    plays = random_plays(rng)
    losses = []
    model = AlternatingLeastSquares(
        factors=6, alpha=3.0, calculate_training_loss=True, use_cg=use_cg, random_state=0
    )

    def callback(iteration, seconds, loss):
        assert iteration == len(losses) and seconds > 0
        expected = exact_loss(plays * 3.0, model.user_factors, model.item_factors, 0.01)
        assert loss == pytest.approx(expected, rel=1e-5)
        losses.append(loss)

    assert model.fit(plays, show_progress=False, callback=callback) is None
    assert len(losses) == model.iterations
    assert losses == sorted(losses, reverse=True)


def test_calculate_loss_of_dislikes_has_no_more_than_their_scores(rng):
    c = random_plays(rng, (8, 6), low=-3.0)
    x, y = rng.random((8, 2), np.float32), rng.random((6, 2), np.float32)
    assert cpu_als.calculate_loss(c, x, y, 0.5) == pytest.approx(exact_loss(c, x, y, 0.5))


def test_fit_goes_on_from_the_factors_of_the_model(plays):
    one = AlternatingLeastSquares(factors=3, iterations=6, random_state=1, use_cg=False)
    one.fit(plays, show_progress=False)
    two = AlternatingLeastSquares(factors=3, iterations=2, random_state=1, use_cg=False)
    for _ in range(3):
        two.fit(plays, show_progress=False)
    np.testing.assert_array_equal(one.user_factors, two.user_factors)
    with pytest.raises(ValueError, match=r"user_factors must have shape \(41, 3\)"):
        two.fit(sp.vstack([plays, plays[:1]]).tocsr(), show_progress=False)
    assert two.user_factors.shape == (40, 3)


def test_a_fit_leaves_factors_that_others_hold_alone(plays):
    model = als.AlternatingLeastSquares(factors=4, iterations=3, random_state=0)
    held = []

    def callback(*values):
        held.extend((f, f.copy()) for f in (model.user_factors, model.item_factors))

    model.fit(plays, show_progress=False, callback=callback)
    held.extend((f, f.copy()) for f in (model.user_factors, model.item_factors))
    model.fit(plays, show_progress=False)
    assert (held[-1][0] != model.item_factors).any()
    for factors, before in held:
        np.testing.assert_array_equal(factors, before)


def test_an_interrupted_fit_keeps_the_last_whole_iteration(plays):
    model = AlternatingLeastSquares(factors=3, iterations=9, random_state=1)

    def stop(iteration, seconds, loss):
        if iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(plays, show_progress=False, callback=stop)
    short = AlternatingLeastSquares(factors=3, iterations=3, random_state=1)
    short.fit(plays, show_progress=False)
    np.testing.assert_array_equal(model.item_factors, short.item_factors)


def test_fit_callback_is_called_where_fit_gets_none(plays):
    model, seen = AlternatingLeastSquares(factors=2, iterations=3), []
    model.fit_callback = lambda *values: seen.append(values)
    model.fit(plays, show_progress=False)
    assert [iteration for iteration, _, _ in seen] == [0, 1, 2]


def test_a_seed_is_a_seed_and_a_random_state_is_taken(plays):
    def factors(state):
        model = AlternatingLeastSquares(factors=2, iterations=1, random_state=state)
        model.fit(plays, show_progress=False)
        return model.user_factors

    np.testing.assert_array_equal(factors(0), factors(0))
    np.testing.assert_array_equal(factors(0), factors(np.random.default_rng(0)))
    old = [factors(np.random.RandomState(5)) for _ in range(2)]
    np.testing.assert_array_equal(*old)
    assert check_random_state(np.random.RandomState(1)).random() != factors(None)[0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_and_scores_have_the_dtype_of_the_model(plays, dtype):
    model = AlternatingLeastSquares(factors=3, dtype=dtype, random_state=0)
    model.fit(plays.astype(np.float64), show_progress=False)
    assert model.user_factors.dtype == model.item_factors.dtype == dtype
    ids, scores = model.recommend(0, plays[0], N=30)
    assert ids.dtype == np.int32 and scores.dtype == dtype
    assert scores.min() == -np.finfo(dtype).max
    assert model.similar_items(0)[1].dtype == dtype
    assert model.recalculate_user(0, plays[0]).dtype == dtype


def test_wrong_input_of_fit_is_told(plays):
    model = AlternatingLeastSquares(factors=2)
    with pytest.warns(ParameterWarning, match="was passed coo_matrix"):
        model.fit(plays.tocoo(), show_progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AlternatingLeastSquares(factors=2).fit(sp.csr_array(plays), show_progress=False)
    plays.data[3] = np.nan
    with pytest.raises(ModelFitError, match="user_items must be finite; got nan"):
        AlternatingLeastSquares(factors=2).fit(plays, show_progress=False)
    with pytest.raises(ValueError, match="dtype must be float32 or float64; got float16"):
        AlternatingLeastSquares(dtype=np.float16).fit(plays, show_progress=False)
    with pytest.raises(TypeError, match="user_items must be a SciPy sparse matrix"):
        AlternatingLeastSquares().fit(np.eye(3), show_progress=False)
    with pytest.raises(NotFittedError):
        AlternatingLeastSquares().recommend(0, plays[0])


def test_recalculation_solves_exactly_for_one_and_for_many(model, plays):
    expected = exact_half_step(plays * 2.0, model.item_factors, 0.1)
    np.testing.assert_allclose(
        model.recalculate_user(np.arange(40), plays), expected, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        model.recalculate_user(5, plays[5]), expected[5], rtol=1e-3, atol=1e-4
    )
    columns = plays.T.tocsr()
    expected = exact_half_step(columns * 2.0, model.user_factors, 0.1)
    np.testing.assert_allclose(
        model.recalculate_item([4, 2], columns[[4, 2]]), expected[[4, 2]], rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ValueError, match="user_items should have one row"):
        model.recalculate_user([1, 2], plays[:3])
    with pytest.raises(ValueError, match="item_users should have one row"):
        model.recalculate_item([1, 2], columns[:3])
    wide = sp.csr_matrix((np.ones(1), ([0], [30])), shape=(1, 31))
    with pytest.raises(IndexError, match="user_items must have ids of the model, below 30; got 30"):
        model.recalculate_user(0, wide)


def test_partial_fits_store_what_recalculation_returns(model, plays):
    before = model.user_factors.copy()
    expected = model.recalculate_user([1, 44], plays[[2, 3]])
    model.partial_fit_users([1, 44], plays[[2, 3]])
    assert model.user_factors.shape == (45, 4)
    np.testing.assert_array_equal(model.user_factors[[1, 44]], expected)
    np.testing.assert_array_equal(
        model.user_factors[[0, *range(2, 40)]], before[[0, *range(2, 40)]]
    )
    assert not model.user_factors[40:44].any()
    columns = plays.T.tocsr()
    model.partial_fit_items([30], columns[[7]])
    assert model.item_factors.shape == (31, 4)
    assert 30 in model.recommend(0, plays[0], N=31)[0]
    for ids in ([-1], [0.5]):
        with pytest.raises(IndexError, match="userids must be integers from 0 on"):
            model.partial_fit_users(ids, plays[:1])
    with pytest.raises(ValueError, match="must contain 1 row"):
        model.partial_fit_users([1, 2], plays[:1])


def test_searches_see_what_partial_fits_have_changed(model, plays):
    ids = model.similar_items(3)[0]
    columns = plays.T.tocsr()
    model.partial_fit_items([3], columns[[9]])
    model.partial_fit_items([9], columns[[9]])
    assert model.similar_items(3, N=2)[0].tolist() == [9, 3]
    assert ids[0] == 3
    assert model.item_norms[3] == pytest.approx(np.linalg.norm(model.item_factors[3]))
    np.testing.assert_allclose(model.YtY, model.item_factors.T @ model.item_factors)
    np.testing.assert_allclose(model.XtX, model.user_factors.T @ model.user_factors)
    model.similar_users(0)
    model.partial_fit_users([0], plays[[1]])
    model.partial_fit_users([1], plays[[1]])
    assert model.similar_users(0, N=2)[0].tolist() == [1, 0]


def test_recalculation_sees_factors_that_a_partial_fit_changed_in_place(model, plays):
    columns = plays.T.tocsr()
    model.recalculate_item(0, columns[0])  # keeps a solver of the users' factors
    model.partial_fit_users([0, 1, 2], plays[[20, 21, 22]])
    expected = exact_half_step(columns[[0]] * 2.0, model.user_factors, 0.1)[0]
    np.testing.assert_allclose(
        model.recalculate_item(0, columns[0]), expected, rtol=1e-3, atol=1e-4
    )


def test_searched_factors_are_read_only_and_assigned_ones_are_seen(model, plays):
    first = model.recommend(0, plays[0], N=1)[0][0]
    with pytest.raises(ValueError, match="read-only"):
        model.item_factors[first] = 0
    changed = model.item_factors.copy()
    changed[first] = -changed[first]
    model.item_factors = changed
    assert model.recommend(0, plays[0], N=1)[0][0] != first


def test_explain_sums_to_the_score(model, plays):
    item = int(model.recommend(3, plays[3], N=1, recalculate_user=True)[0][0])
    score = float(model.item_factors[item] @ model.recalculate_user(3, plays[3]))
    total, parts, weights = model.explain(3, plays, item, N=100)
    assert total == pytest.approx(score, rel=1e-4)
    assert sum(part for _, part in parts) == pytest.approx(total)
    assert sorted(i for i, _ in parts) == plays[3].indices.tolist()
    assert [part for _, part in parts] == sorted((p for _, p in parts), reverse=True)
    again = model.explain(3, plays, item, user_weights=weights, N=2)
    assert again[0] == pytest.approx(total) and again[1] == parts[:2]
    y, c = model.item_factors.astype(np.float64), plays[3].toarray()[0] * 2.0
    system = (y * np.where(c > 0, c, 1)[:, None]).T @ y + 0.1 * np.eye(4)
    inverse = np.linalg.inv(system)
    for other, part in parts:
        assert part == pytest.approx(y[item] @ inverse @ y[other] * c[other], rel=1e-6)
    with pytest.raises(IndexError, match="userid must be a row"):
        model.explain(40, plays, item)


def test_a_model_survives_files_and_pickles(model, plays, tmp_path):
    model.recommend(0, plays[0])
    for name in ("model", "model.npz", tmp_path / "path.npz"):
        path = name if not isinstance(name, str) else str(tmp_path / name)
        model.save(path)
        loaded = AlternatingLeastSquares.load(path)
        assert type(loaded) is AlternatingLeastSquares
        np.testing.assert_array_equal(loaded.recommend(0, plays[0]), model.recommend(0, plays[0]))
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    assert AlternatingLeastSquares.load(stream).alpha == 2.0
    with np.load(tmp_path / "model.npz") as data:
        assert "num_threads" not in data  # that of this machine
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        np.testing.assert_array_equal(other.recommend(0, plays[0]), model.recommend(0, plays[0]))
        other.partial_fit_users([0], plays[[1]])
    unfitted = AlternatingLeastSquares(random_state=np.random.default_rng(0))
    unfitted.save(tmp_path / "unfitted.npz")
    assert AlternatingLeastSquares.load(tmp_path / "unfitted.npz").user_factors is None


@pytest.mark.parametrize(
    "arrays",
    [
        {"user_factors": np.zeros((3, 5)), "factors": 4},
        {"user_factors": np.array(["a"]), "factors": 1},
        {"factors": np.zeros(3)},
        {"factors": "many"},
        {"user_factors": np.array([{}], dtype=object), "factors": 1},
        {"dtype": "no such type"},
    ],
)
def test_a_file_that_is_no_model_is_told(arrays, tmp_path):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(FormatError, match="load"):
        AlternatingLeastSquares.load(tmp_path / "m.npz")
    (tmp_path / "no.npz").write_bytes(b"PK no zip")
    with pytest.raises(FormatError, match="load"):
        AlternatingLeastSquares.load(tmp_path / "no.npz")
    np.savez(tmp_path / "attribute.npz", recommend=1)
    assert callable(AlternatingLeastSquares.load(tmp_path / "attribute.npz").recommend)


def test_the_solver_works_in_place_on_what_it_is_given(rng, plays):
    x, y = np.zeros((40, 3)), rng.random((30, 3))
    for use_cg in (True, False):
        solver = AlternatingLeastSquares(use_cg=use_cg).solver
        assert solver(plays, x, y, 0.4, num_threads=1) is None
        np.testing.assert_allclose(x, exact_half_step(plays, y, 0.4), rtol=1e-3, atol=1e-4)


def test_a_gpu_that_is_not_there_is_told_and_the_cpu_is_a_copy(model, plays):
    if recfuse.doctor()["cuda"]["usable"]:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError):
        AlternatingLeastSquares(use_gpu=True)
    with pytest.raises(DeviceError):
        model.to_gpu()
    same = model.to_cpu()
    np.testing.assert_array_equal(same.recommend(1, plays[1]), model.recommend(1, plays[1]))


@pytest.mark.parametrize(
    "name",
    [
        bpr.BayesianPersonalizedRanking,
        lmf.LogisticMatrixFactorization,
        approximate_als.FaissAlternatingLeastSquares,
    ],
)
def test_what_is_not_there_says_so(name):
    with pytest.raises(NotImplementedError, match=f"{name.__name__} must come from implicit"):
        name(factors=3)
    with pytest.raises(NotImplementedError, match=f"{name.__name__} must come from implicit"):
        name.load("model.npz")
    assert isinstance(name, type)  # programs ask `isinstance(model, name)`


def test_helpers(rng, plays):
    assert dict(nonzeros(plays, 4)) == dict(zip(plays[4].indices, plays[4].data, strict=True))
    factors = rng.standard_normal((20, 3))
    largest, longer = augment_inner_product_matrix(factors)
    np.testing.assert_allclose(np.linalg.norm(longer, axis=1), largest)
    np.testing.assert_array_equal(longer[:, :3], factors)
