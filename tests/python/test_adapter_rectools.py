"""recfuse.adapters.rectools: against float64 scores, and against RecTools's rankers and models."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import scipy.sparse as sp

from helpers import program
from recfuse.adapters.rectools import Ranker, replace_rankers

DISTANCES = ("dot", "cosine", "euclidean")


def reference(distance, subjects, objects, k, exclude=None, allow=None):
    """Score all pairs in float64, sort by (score, id): one (ids, scores) a subject."""
    x, y = (np.asarray(m, np.float32).astype(np.float64) for m in (subjects, objects))
    if distance == "euclidean":
        scores = np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=2))
        keys = scores.astype(np.float32)
    else:
        scores = x @ y.T
        if distance == "cosine":
            norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
            scores = np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)
        keys = -scores.astype(np.float32)
    admitted = np.ones(keys.shape, bool)
    if allow is not None:
        admitted[:, np.setdiff1d(np.arange(len(y)), allow)] = False
    if exclude is not None:
        admitted[np.repeat(np.arange(len(x)), np.diff(exclude.indptr)), exclude.indices] = False
    lists = []
    for row in range(len(x)):
        ids = np.flatnonzero(admitted[row])
        ids = ids[np.lexsort((ids, keys[row, ids]))][:k]
        lists.append((ids, scores[row, ids]))
    return lists


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((12, 7)), rng.standard_normal((60, 7))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 7, None])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("whitelisted", [False, True])
def test_lists_are_those_of_all_scores(rng, vectors, distance, k, filtered, whitelisted):
    subjects, objects = vectors
    chosen = rng.permutation(12)[:9]
    pairs = None
    if filtered:
        some = rng.random((9, 60)) < 0.5
        some[4] = True  # this subject has nothing left
        pairs = sp.csr_matrix(some.astype(np.float32))
        pairs.data[::3] = 0  # stored, so left out
    allow = np.sort(rng.permutation(60)[:20]) if whitelisted else None
    given, ids, scores = Ranker(distance, subjects, objects).rank(chosen, k, pairs, allow)
    lists = reference(distance, subjects[chosen], objects, 100 if k is None else k, pairs, allow)
    np.testing.assert_array_equal(given, np.repeat(chosen, [len(row) for row, _ in lists]))
    np.testing.assert_array_equal(ids, np.concatenate([row for row, _ in lists]))
    expected = np.concatenate([row for _, row in lists])
    np.testing.assert_allclose(scores, expected, rtol=3e-7, atol=1e-7)
    assert scores.dtype == np.float32 and ids.dtype == np.int64
    if filtered:
        assert chosen[4] not in given


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_scores_are_ordered_by_id(distance):
    objects = np.ones((9, 3))
    _, ids, _ = Ranker(distance, np.ones((2, 3)), objects).rank([1, 0], 4)
    assert ids.tolist() == [0, 1, 2, 3] * 2


def test_close_objects_far_away_are_told_apart():
    # Squared distances of 1e-4 beside squared lengths of 1e8: float32 sums know nothing of them.
    objects = np.full((50, 4), 5e3, np.float32)
    objects[:, 0] += np.linspace(0, 0.2, 50, dtype=np.float32)[::-1]
    _, ids, scores = Ranker("euclidean", np.full((1, 4), 5e3), objects).rank([0], 5)
    lists = reference("euclidean", np.full((1, 4), 5e3), objects, 5)
    np.testing.assert_array_equal(ids, lists[0][0])
    np.testing.assert_allclose(scores, lists[0][1], rtol=3e-7)


def test_vectors_of_zeros_have_cosine_zero():
    ranker = Ranker("cosine", [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    _, ids, scores = ranker.rank([0, 1])
    assert ids.tolist() == [0, 1, 2, 1, 0, 2] and scores.tolist() == [0, 0, 0, 1, 0, -1]


def test_sparse_subjects_are_ranked_in_blocks(rng, monkeypatch):
    import recfuse.adapters.rectools as module

    subjects = sp.random(40, 30, density=0.2, format="csr", random_state=2)
    objects = rng.standard_normal((30, 30))
    pairs = sp.csr_matrix(subjects[5:35])
    expected = Ranker("dot", subjects.toarray(), objects).rank(range(5, 35), 6, pairs)
    monkeypatch.setattr(module, "_DENSE", 30 * 7)
    actual = Ranker("dot", subjects, objects, num_threads=1).rank(range(5, 35), 6, pairs)
    for ours, whole in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_nothing_to_rank(vectors):
    ranker = Ranker("dot", *vectors)
    empty = Ranker("euclidean", np.ones((2, 3)), np.ones((0, 3)))
    for found in (ranker.rank([]), ranker.rank([3], 5, None, np.array([], int)), empty.rank([0])):
        assert [len(part) for part in found] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"distance": "manhattan"},
            ValueError,
            "ranker: distance must be one of 'dot', 'cosine', 'euclidean'; got 'manhattan'",
        ),
        (
            {"distance": "cosine", "subjects_factors": sp.eye(12, 7, format="csr")},
            ValueError,
            "ranker: subjects_factors must be dense for distance 'cosine'; got sparse",
        ),
        (
            {"subjects_factors": np.ones((12, 6))},
            ValueError,
            r"ranker: subjects_factors must have 7 columns, as objects_factors; got .*12, 6",
        ),
        ({"k": 0}, ValueError, "rank: k must be at least 1; got 0"),
        ({"subject_ids": [12]}, IndexError, r"rank: subject_ids must be .*12"),
        ({"sorted_object_whitelist": [60]}, IndexError, "rank: sorted_object_whitelist must be"),
        (
            {"filter_pairs_csr": sp.csr_matrix((2, 60))},
            ValueError,
            r"rank: filter_pairs_csr must have shape \(1, 60\) \(subject_ids, objects\); got \(2,",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(vectors, change, error, message):
    made = {"distance": "dot", "subjects_factors": vectors[0], "objects_factors": vectors[1]}
    asked = {"subject_ids": [0], "k": 3}
    for name, value in change.items():
        (made if name in made else asked)[name] = value
    with pytest.raises(error, match=message):
        Ranker(**made).rank(**asked)


def test_a_gpu_that_is_not_there_is_an_error(vectors):
    import recfuse

    if recfuse.doctor()["cuda"]["usable"]:
        pytest.skip("there is a GPU")
    with pytest.raises(recfuse.errors.DeviceError):
        Ranker("dot", *vectors, use_gpu=True)


# -- With RecTools itself. ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def rectools():
    return pytest.importorskip("rectools", reason="RecTools is not installed")


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 10, None])
def test_same_lists_as_rectools_own_rankers(rectools, rng, vectors, distance, k):
    from rectools.models.rank import Distance, ImplicitRanker

    subjects, objects = vectors
    chosen, allow = rng.permutation(12), np.sort(rng.permutation(60)[:30])
    pairs = sp.random(12, 60, density=0.3, format="csr", random_state=1)
    peers = [(ImplicitRanker(Distance(distance), subjects, objects), True)]
    with contextlib.suppress(ImportError):  # RecTools without PyTorch
        from rectools.models.rank import TorchRanker

        # What it filters is at distance -inf there, the nearest of all: no list to compare with.
        compared = distance != "euclidean"
        peers.append((TorchRanker(Distance(distance), "cpu", subjects, objects), compared))
    ours = Ranker(Distance(distance), subjects, objects)
    for whitelist in (None, allow):
        for peer, filters in peers:
            # Of a copy: implicit's helper overwrites the values of a filter beside a whitelist.
            for filtered in (None, pairs.copy()) if filters else (None,):
                expected = peer.rank(chosen, k, filtered, whitelist)
                actual = ours.rank(chosen, k, pairs if filtered is not None else None, whitelist)
                np.testing.assert_array_equal(actual[0], expected[0])
                np.testing.assert_array_equal(actual[1], expected[1])
                np.testing.assert_allclose(actual[2], expected[2], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def dataset(rectools):
    from rectools import Columns
    from rectools.dataset import Dataset

    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 80, 1500), rng.integers(0, 50, 1500)
    frame = pandas.DataFrame({Columns.User: users + 1000, Columns.Item: items + 500})
    frame = frame.drop_duplicates()
    frame[Columns.Weight] = 1.0
    frame[Columns.Datetime] = "2026-01-01"
    return Dataset.construct(frame)


def models():
    from implicit.als import AlternatingLeastSquares
    from rectools import models

    als = AlternatingLeastSquares(factors=8, random_state=1, num_threads=1)
    return [
        models.ImplicitALSWrapperModel(als),
        models.PureSVDModel(factors=8),
        models.EASEModel(regularization=50.0),
    ]


@pytest.mark.filterwarnings("ignore")  # of OpenBLAS's threads, and of what RecTools deprecates
@pytest.mark.parametrize("which", range(3))
def test_models_of_rectools_recommend_the_same_by_our_ranker(dataset, which):
    model = models()[which].fit(dataset)
    asked = {"dataset": dataset, "k": 10}
    users = {"users": dataset.user_id_map.external_ids, "filter_viewed": True}

    def lists():
        few = dataset.item_id_map.external_ids[:25]
        return [
            model.recommend(**asked, **users),
            model.recommend(**asked, **users, items_to_recommend=few),
            model.recommend_to_items(
                target_items=dataset.item_id_map.external_ids, **asked, filter_itself=True
            ),
        ]

    own = lists()
    with replace_rankers() as replaced:
        import rectools.models.vector

        assert rectools.models.vector.ImplicitRanker is Ranker
        ours = lists()
    assert rectools.models.vector.ImplicitRanker is not Ranker
    replaced.undo()  # twice does nothing
    for before, after in zip(own, ours, strict=True):
        assert len(before) == len(after) > 100
        assert list(before.columns) == list(after.columns)
        keys = [before.columns[0], "item_id"]
        np.testing.assert_allclose(before["score"], after["score"], rtol=1e-4, atol=1e-5)
        same = (before[keys].to_numpy() == after[keys].to_numpy()).all(axis=1)
        close = np.isclose(before["score"].diff(), 0, atol=1e-5) | np.isclose(
            before["score"].diff(-1), 0, atol=1e-5
        )
        assert (same | close).all()


PATCHED = """
import recfuse.compat
recfuse.compat.patch("implicit")
import warnings; warnings.simplefilter("ignore")
import numpy as np, pandas as pd
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import EASEModel, ImplicitALSWrapperModel, ImplicitItemKNNWrapperModel
import rectools.models.rank.rank_implicit as ranks

assert AlternatingLeastSquares.__module__.startswith("recfuse.compat")
rng = np.random.default_rng(3)
pairs = {Columns.User: rng.integers(0, 80, 1500), Columns.Item: rng.integers(0, 50, 1500)}
frame = pd.DataFrame(pairs).drop_duplicates()
frame[Columns.Weight], frame[Columns.Datetime] = 1.0, "2026-01-01"
dataset = Dataset.construct(frame)
for model in (
    ImplicitALSWrapperModel(AlternatingLeastSquares(factors=8, random_state=1)),
    ImplicitALSWrapperModel(AlternatingLeastSquares(factors=8, random_state=1), True),
    ImplicitItemKNNWrapperModel(CosineRecommender(K=10)),
    EASEModel(regularization=50.0),
):
    lists = model.fit(dataset).recommend(dataset.user_id_map.external_ids, dataset, 10, True)
    assert len(lists) > 700, len(lists)
    seen = set(map(tuple, frame[[Columns.User, Columns.Item]].to_numpy()))
    assert not seen & set(map(tuple, lists[[Columns.User, Columns.Item]].to_numpy()))
    again = type(model).from_config(model.get_config())
    pd.testing.assert_frame_equal(
        again.fit(dataset).recommend(dataset.user_id_map.external_ids, dataset, 10, True), lists
    )
print("all ran")
"""


def test_rectools_runs_over_the_patched_implicit(rectools):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", PATCHED], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip().endswith("all ran"), done.stderr[-3000:]


@pytest.mark.filterwarnings("ignore")
def test_an_unpatched_rectools_takes_no_model_of_another(rectools):
    from rectools.models import ImplicitALSWrapperModel

    from recfuse import AlternatingLeastSquares
    from recfuse.compat.implicit.als import AlternatingLeastSquares as Compatible

    with pytest.raises(ValueError, match="Input should be a subclass of AlternatingLeastSquares"):
        ImplicitALSWrapperModel(Compatible(factors=2))
    with pytest.raises(AttributeError, match="has no attribute 'dtype'"):
        ImplicitALSWrapperModel(AlternatingLeastSquares(factors=2))


def test_the_program_of_the_document_runs(dataset, vectors):
    model = models()[1].fit(dataset)
    names = {
        "user_vectors": vectors[0],
        "item_vectors": vectors[1],
        "seen": sp.csr_matrix((3, 60)),
        "model": model,
        "people": dataset.user_id_map.external_ids,
        "dataset": dataset,
    }
    exec(program("RecTools"), names)
    assert len(names["items"]) == 30 and len(names["lists"]) > 100
