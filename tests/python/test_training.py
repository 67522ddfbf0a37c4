"""Batches, negatives and dropout: laws of the draws, and their frequencies against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recfuse.interactions import Interactions
from recfuse.training import (
    Batch,
    InteractionBatches,
    NegativeSampler,
    item_dropout,
    modality_dropout,
)


def likes(seed=0, n_users=9, n_items=12, density=0.4):
    rng = np.random.default_rng(seed)
    return sp.csr_array((rng.random((n_users, n_items)) < density).astype(np.float32))


# --- negatives


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.5, 0.9]), st.integers(1, 5))
def test_a_negative_is_never_a_positive_of_the_user(seed, density, n):
    matrix = likes(seed, density=density)
    matrix = sp.csr_array(sp.hstack([matrix, sp.csr_array((9, 1))]))  # one item is left to all
    users = np.random.default_rng(seed).integers(0, 9, 40)
    drawn = NegativeSampler(matrix).sample(users, n, random_state=seed)
    assert drawn.shape == (40, n) and drawn.dtype == np.int64
    assert (matrix.toarray()[users[:, None], drawn] == 0).all()


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("rounds", [0, 16])  # by the list of items left, and by rejection
def test_negatives_have_the_distribution_of_the_formula(distribution, rounds, monkeypatch):
    monkeypatch.setattr("recfuse.training.batches._ROUNDS", rounds)
    matrix = likes(3)
    counts = (matrix.toarray() > 0).sum(axis=0)
    weights = np.ones(12) if distribution == "uniform" else counts**0.75
    for user in (0, 4):
        expected = np.where(matrix.toarray()[user] > 0, 0.0, weights)
        expected *= 20_000 / expected.sum()
        drawn = NegativeSampler(matrix, distribution).sample([user] * 2000, 10, random_state=1)
        found = np.bincount(drawn.ravel(), minlength=12)
        assert not found[expected == 0].any()
        possible = expected > 0
        assert stats.chisquare(found[possible], expected[possible]).pvalue > 0.001


def test_who_has_all_but_one_item_gets_that_one():
    matrix = np.ones((2, 500))
    matrix[0, 137] = matrix[1, 401] = 0
    drawn = NegativeSampler(sp.csr_array(matrix)).sample([0, 1, 0], 3, random_state=0)
    assert drawn.tolist() == [[137] * 3, [401] * 3, [137] * 3]


def test_an_item_that_nobody_has_is_no_negative_by_popularity():
    matrix = sp.csr_array(np.array([[1.0, 0, 0], [0, 1, 0]]))
    for power in (0, 0.75):
        drawn = NegativeSampler(matrix, "popularity", power=power).sample([0] * 50, random_state=0)
        assert set(drawn.ravel().tolist()) == {1}


def test_a_user_without_a_negative():
    with pytest.raises(ValueError, match=r"^sample: user_items must leave .*none for user 1"):
        NegativeSampler(sp.csr_array([[1, 0], [1, 1]])).sample([0, 1])
    with pytest.raises(ValueError, match="to draw by popularity; got none for user 0"):
        NegativeSampler(sp.csr_array([[1, 0]]), "popularity").sample([0])


def test_a_stored_zero_is_a_positive_and_a_seed_repeats():
    matrix = sp.csr_array((np.array([0.0]), ([0], [0])), shape=(1, 2))
    sampler = NegativeSampler(matrix)
    assert set(sampler.sample([0] * 30, random_state=0).ravel().tolist()) == {1}
    sampler = NegativeSampler(likes())
    first, again = (sampler.sample(range(9), 4, random_state=7) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert sampler.sample([], 2).shape == (0, 2)


# --- batches


@given(st.integers(0, 100), st.integers(1, 60), st.booleans())
def test_an_epoch_has_every_interaction_once(seed, batch_size, shuffle):
    matrix = likes(seed) * 3
    batches = InteractionBatches(matrix, batch_size, shuffle=shuffle, random_state=seed)
    parts = list(batches)
    assert len(parts) == len(batches)
    assert {len(part.users) for part in parts[:-1]} <= {batch_size}
    users, items, values = (np.concatenate([part[c] for part in parts]) for c in range(3))
    again = sp.coo_array((values, (users, items)), shape=matrix.shape)
    np.testing.assert_array_equal(again.toarray(), matrix.toarray())
    for part in parts:
        assert (matrix.toarray()[part.users[:, None], part.negatives] == 0).all()


def test_epochs_differ_and_can_be_repeated_from_anywhere():
    batches = InteractionBatches(likes(), 7, n_negatives=2, random_state=3)
    first, second = list(batches), list(batches)
    assert any((a.items != b.items).any() for a, b in zip(first[:-1], second[:-1], strict=True))
    other = InteractionBatches(likes(), 7, n_negatives=2, random_state=3)
    next(iter(other))  # left after one batch
    for a, b in zip(second, other.epoch(1), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_small_last_batch_and_no_negatives():
    matrix = likes()
    batches = InteractionBatches(matrix, 7, drop_last=True, n_negatives=0)
    parts = list(batches)
    assert len(parts) == len(batches) == matrix.nnz // 7
    assert {part.negatives.shape for part in parts} == {(7, 0)}
    assert len(InteractionBatches(matrix, 7)) == -(-matrix.nnz // 7)


def test_interactions_are_taken_and_labelled():
    events = Interactions.from_arrays(["a", "b"], ["x", "y"], values=[2, 3])
    (batch,) = InteractionBatches(events, n_negatives=2, shuffle=False)
    users, items, labels = batch.labelled()
    assert users.tolist() == [0, 1, 0, 0, 1, 1]
    assert items.tolist() == [0, 1, 1, 1, 0, 0]
    assert labels.tolist() == [1, 1, 0, 0, 0, 0]
    assert isinstance(batch, Batch) and batch.values.tolist() == [2, 3]


# --- dropout


@given(st.integers(0, 1000), st.sampled_from([0, 0.3, 0.99]))
def test_item_dropout_keeps_a_part_of_every_history(seed, rate):
    matrix = likes(seed, density=0.2) * 4
    for part in item_dropout(matrix, rate, n_epochs=3, random_state=seed):
        dense, whole = part.toarray(), matrix.toarray()
        assert ((dense == whole) | (dense == 0)).all()
        np.testing.assert_array_equal(dense.any(axis=1), whole.any(axis=1))
        assert rate > 0 or part.nnz == matrix.nnz


def test_the_share_left_out_is_the_rate():
    matrix = likes(1, 400, 300, 0.5)  # rows far too long to lose all
    nnz = [part.nnz for part in item_dropout(matrix, 0.3, n_epochs=5)]
    assert len(set(nnz)) > 1
    for kept in nnz:
        assert stats.binomtest(kept, matrix.nnz, 0.7).pvalue > 0.001


def test_the_entry_that_stays_is_any_of_them():
    matrix = sp.csr_array(np.ones((3000, 3)))
    part = next(item_dropout(matrix, 1 - 1e-9, n_epochs=1))
    np.testing.assert_array_equal(np.diff(part.indptr), 1)
    assert stats.chisquare(np.bincount(part.indices)).pvalue > 0.001


@given(st.integers(0, 1000), st.sampled_from([0, 0.5, 0.99]))
def test_modality_dropout_keeps_one_of_what_there_is(seed, rate):
    rng = np.random.default_rng(seed)
    vectors = {name: rng.normal(size=(20, 3)).astype(np.float32) for name in "abc"}
    for x in vectors.values():
        x[rng.random(20) < 0.3] = 0
    has = {name: x.any(axis=1) for name, x in vectors.items()}
    for dropped, present in modality_dropout(vectors, rate, n_epochs=2, random_state=seed):
        for name, x in vectors.items():
            expected = np.where(present[name][:, None], x, 0)
            np.testing.assert_array_equal(dropped[name], expected)
            assert not (present[name] & ~has[name]).any()
            assert rate > 0 or (present[name] == has[name]).all()
        any_left, any_before = (np.any(list(m.values()), axis=0) for m in (present, has))
        np.testing.assert_array_equal(any_left, any_before)


def test_modality_dropout_takes_the_rate_and_the_mask():
    vectors = {"text": np.ones((20_000, 1)), "image": np.ones((20_000, 1))}
    _, present = next(modality_dropout(vectors, 0.4, n_epochs=1))
    both = int((present["text"] & present["image"]).sum())
    assert stats.binomtest(both, 20_000, 0.36).pvalue > 0.001
    assert stats.binomtest(int(present["text"].sum()), 20_000, 0.6 + 0.16 / 2).pvalue > 0.001
    mask = np.arange(20_000) % 2 == 0
    _, present = next(modality_dropout(vectors, 0.4, present={"text": mask}, n_epochs=1))
    assert not present["text"][~mask].any() and present["image"][~mask].all()


def test_an_epoch_of_dropout_depends_on_the_seed_and_its_number_alone():
    short = list(item_dropout(likes(), 0.5, n_epochs=2, random_state=4))
    long = list(item_dropout(likes(), 0.5, n_epochs=4, random_state=4))
    for a, b in zip(short, long, strict=False):
        np.testing.assert_array_equal(a.toarray(), b.toarray())
    assert (long[2].toarray() != long[3].toarray()).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NegativeSampler(np.eye(2)), TypeError, "^NegativeSampler: user_items must be a"),
        (lambda: NegativeSampler(likes(), "x"), ValueError, "distribution must be .* got 'x'"),
        (lambda: NegativeSampler(likes(), power=-1), ValueError, "power must be finite and at"),
        (lambda: NegativeSampler(likes()).sample([9]), IndexError, "^sample: user_ids must be in"),
        (lambda: NegativeSampler(likes()).sample([0], 0), ValueError, "n must be at least 1"),
        (lambda: InteractionBatches(sp.csr_array((2, 2))), ValueError, "at least one entry"),
        (lambda: InteractionBatches(likes(), 0), ValueError, "batch_size must be at least 1"),
        (lambda: item_dropout(likes(), 1.0, n_epochs=1), ValueError, r"^item_dropout: rate must"),
        (lambda: item_dropout(likes(), "a", n_epochs=1), TypeError, "rate must be a number"),
        (lambda: item_dropout(likes(), n_epochs=0), ValueError, "n_epochs must be at least 1"),
        (lambda: modality_dropout({}, n_epochs=1), ValueError, "at least one modality"),
        (
            lambda: modality_dropout({"a": np.ones((2, 1)), "b": np.ones((3, 1))}, n_epochs=1),
            ValueError,
            "rows of the same items",
        ),
        (
            lambda: modality_dropout({"a": np.ones((2, 1))}, present={"a": [1, 0]}, n_epochs=1),
            ValueError,
            r"present\['a'\] must be booleans of shape \(2,\); got int64",
        ),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
