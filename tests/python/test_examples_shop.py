"""The shop scenario: it cuts in time, keeps what it promises, and finds what was planted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def shop(monkeypatch):
    pytest.importorskip("sklearn", reason="pip install 'recfuse[features]'")
    monkeypatch.syspath_prepend(FOLDER)
    import shop

    return shop


@pytest.fixture
def made(shop):
    return shop.generate(200, 150, seed=1)


def test_it_runs_and_keeps_its_promises(shop, capsys):
    tables = shop.main(["--small"])
    said = capsys.readouterr().out
    assert said.count(": True") == 4 and "False" not in said
    guests = tables["guests"].difference("session as a history", "popularity", shop.METRIC)
    assert guests.low > 0
    groups = [table for name, table in tables.items() if name.startswith("customers")]
    users = [set(table.results["behaviour"].user_ids.tolist()) for table in groups]
    assert users[0] and users[1] and not users[0] & users[1]
    hour = tables["guests"].difference(shop.TIMED, shop.CONTENT, shop.METRIC)
    assert f"Hour and weekday {shop.SAID[shop.shared.verdict(hour)]}: {hour.mean:+.4f}" in said
    cost = tables["near"].difference("nearer first", "by taste", shop.METRIC)
    assert f"{cost.mean:+.4f} [{cost.low:+.4f}" in said
    before, after = (int(km) for km in re.findall(r"(\d+) km", said))
    assert after < before
    for line in ("drop missing", "drop unknown events", "clip seconds", "value_ndcg"):
        assert line in said


def test_the_shop_is_the_same_for_a_seed_and_has_what_it_says(shop, made):
    again = shop.generate(200, 150, seed=1)
    for name, column in made.log.items():
        np.testing.assert_array_equal(column, again.log[name])
    log = made.log
    assert (np.diff(log["time"]) >= 0).all()
    bought = log["did"] == "purchase"
    assert np.isnan(log["price"][~bought & (log["did"] != "impression")]).all()
    price = dict(zip(made.goods["item"], made.goods["price"], strict=True))
    assert [price[item] for item in log["item"][bought]] == log["price"][bought].tolist()
    # Nobody buys what was not in the cart before.
    carts = {
        (session, item): moment
        for session, item, did, moment in zip(
            log["session"], log["item"], log["did"], log["time"], strict=True
        )
        if did == "cart"
    }
    for row in np.flatnonzero(bought):
        assert carts[log["session"][row], log["item"][row]] < log["time"][row]


def test_the_test_is_later_than_everything_else_and_bought(shop, made):
    end = int(made.log["time"].max())
    cuts = [end - 40 * shop.DAY, end - 20 * shop.DAY]
    log = shop.read(made.log, cuts)
    assert log.early.timestamps.max() < cuts[0] <= log.chosen_on.timestamps.min()
    assert log.known.timestamps.max() < cuts[1] <= log.test.timestamps.min()
    assert log.known.timestamps.max() > cuts[0]
    pairs = {
        (visitor, item)
        for visitor, item, did, moment in zip(
            *(made.log[name] for name in ("visitor", "item", "did", "time")), strict=True
        )
        if did == "purchase" and moment >= cuts[1]
    }
    found = set(
        zip(log.test.users[log.test.user_index], log.test.items[log.test.item_index], strict=True)
    )
    assert found and found <= pairs and None not in log.known.users.tolist()


def test_half_life_halves(shop, made):
    end = int(made.log["time"].max())
    cuts = [end - 40 * shop.DAY, end - 20 * shop.DAY]
    plain, fading = shop.read(made.log, cuts), shop.read(made.log, cuts, 10 * shop.DAY)
    ratio = fading.known.to_csr().sum() / plain.known.to_csr().sum()
    assert 0 < ratio < 0.5
    assert (plain.known.to_csr() != fading.known.to_csr()).nnz > 0


def test_goods_of_one_price_level_are_alike(shop):
    from shop_data import price_vectors

    price = np.array([1.0, 1.1, 100.0, 10.0, 11.0, 1000.0])
    vectors = price_vectors(price, np.array(["pen"] * 3 + ["desk"] * 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[0, 1] > 0.9 > 0.1 > alike[0, 2]
    np.testing.assert_allclose(vectors[:3], vectors[3:], atol=1e-9)  # dear for what it is


def test_sessions_without_a_name_are_cut_in_halves(shop, made):
    end = int(made.log["time"].max())
    since = end - 60 * shop.DAY
    log = shop.read(made.log, [end - 80 * shop.DAY, since])
    pasts, futures, begins = shop.anonymous(made.log, since, log.known)
    times = made.log["time"]
    assert len(begins) == len(pasts) and (begins >= since).all() and np.isin(begins, times).all()
    assert len(pasts) == futures.shape[0] > 0
    for row, past in enumerate(pasts):
        later = futures[[row]].indices
        assert 2 <= len(past) <= len(later) <= len(past) + 1
        assert not set(past) & set(later.tolist())


def test_the_clock_of_an_article_is_the_mean_of_its_moments(shop, made):
    import recfuse

    day = 86_400
    events = recfuse.Interactions.from_arrays(
        [0, 1, 0], [0, 0, 1], timestamps=[0, 12 * 3600, 7 * day + 6 * 3600]
    )
    clocks = shop.clock_vectors(events)
    # Midnight and noon of one day: the hours cancel out, the weekday stays.
    np.testing.assert_allclose(clocks[0, :2], 0, atol=1e-6)
    assert np.linalg.norm(clocks[0, 2:]) > 0.6
    np.testing.assert_allclose(clocks[1, :2] * np.sqrt(2), [0, 1], atol=1e-6)  # six o'clock
