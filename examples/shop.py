"""A shop: from a raw log to recommendations, and what happens while it is open.

Views, carts and purchases become one strength per event; behaviour, titles, attributes and prices
are weighed against each other; then visitors come without a name, goods come and go, a customer
wants to be forgotten. The events are generated (`shop_events.py`), so the numbers speak of what was
planted there, not of your shop.

Needs recfuse[features].
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shared
from shop_data import CYCLES, Log, anonymous, clock_vectors, describe, read
from shop_events import DAY, generate

import recfuse
from recfuse import plots
from recfuse.evaluation import Comparison, Split, Trial, compare, evaluate, ranking_metrics, tune
from recfuse.features import cyclic_time, haversine, history_profiles
from recfuse.preprocess import Report, check
from recfuse.privacy import forget_users
from recfuse.rerank import boost, distance_decay
from recfuse.sessions import session_rows, session_vectors

SEED = 0
BASELINE, FUSED, METRIC = "behaviour", "all of them", "ndcg@10"
CONTENT, TIMED = "content of the session", "with hour and weekday"
SAID = {"helps": "help", "harms": "do harm", "chance": "are worth no more than chance"}
LAST = "purchases of the last 15 days, of goods new to the customer"


def als(regularization: float) -> recfuse.AlternatingLeastSquares:
    return recfuse.AlternatingLeastSquares(
        32, regularization=regularization, alpha=0.2, random_state=SEED
    )


def choose(log: dict[str, np.ndarray], cuts: list[int]) -> dict[str, Any]:
    """Return the half-life, in days, and the regularisation that foretell the next purchases."""
    days = [None, 60, 20]
    by_days = {n: read(log, cuts, n and n * DAY) for n in days}

    def objective(trial: Trial) -> float:
        parts = by_days[trial.suggest_categorical("half_life", days)]
        model = als(trial.suggest_float("regularization", 0.1, 1000)).fit(parts.early)
        return evaluate(model, parts.early, parts.chosen_on, k=10)[METRIC]

    found = tune(objective, grid={"half_life": days, "regularization": [3.0, 10.0, 30.0, 100.0]})
    print(f"   {len(found.trials)} tried; {METRIC} {found.best_value:.4f} by {found.best_params}")
    return found.best_params


def fit(
    log: Log, content: dict[str, np.ndarray], regularization: float
) -> dict[str, recfuse.MultimodalRecommender]:
    """Fit behaviour alone, with every other modality, and with all.

    Weights are chosen on the purchases between the cuts, then all is fitted on what is known.
    """
    chosen = {BASELINE: [], **{f"with {name}": [name] for name in content}, FUSED: list(content)}
    models = {}
    for title, names in chosen.items():
        items = {name: content[name] for name in names}
        trial = recommender(regularization).fit(log.early, items, validation=log.chosen_on)
        models[title] = recommender(regularization, trial.weights_).fit(log.known, items)
    return models


def recommender(regularization: float, weights: Any = "fit") -> recfuse.MultimodalRecommender:
    behaviour = {"als": als(regularization), "neighbours": recfuse.ItemNeighbours(k=50)}
    return recfuse.MultimodalRecommender(behaviour, weights=weights, k=10, cold_items=5)


def compare_groups(
    models: dict[str, recfuse.MultimodalRecommender], log: Log
) -> dict[str, Comparison]:
    """Compare by how much is known of the customers, and for goods of which little is known."""
    per_customer = np.bincount(log.known.user_index, minlength=log.known.n_users)
    per_good = np.bincount(log.known.item_index, minlength=log.known.n_items)
    few, fresh = per_customer <= 10, np.flatnonzero(per_good <= 5)
    of_fresh = log.test.select(np.isin(log.test.item_index, fresh))
    among_fresh = {name: partial(model.recommend, allow=fresh) for name, model in models.items()}
    groups: dict[str, tuple[Any, recfuse.Interactions, np.ndarray | None]] = {
        "customers with up to 10 goods": (models, log.test, np.flatnonzero(few)),
        "customers with more": (models, log.test, np.flatnonzero(~few)),
        "goods with up to 5 customers, among themselves": (among_fresh, of_fresh, None),
    }
    return {
        name: compare(recommend, Split(log.known, test, f"{LAST}; {name}"), k=10, user_ids=users)
        for name, (recommend, test, users) in groups.items()
    }


def reasons(log: Log, content: dict[str, np.ndarray]) -> str:
    """Say how near purchases are to what their buyer knows, and to what somebody else knows."""
    other = np.random.default_rng(SEED).permutation(len(log.test))
    history, told = log.known.to_csr(), []
    for name, vectors in content.items():
        centred = vectors - vectors.mean(axis=0)
        buyers = history_profiles(history, {name: centred})[name][log.test.user_index]
        bought = centred[log.test.item_index]
        near = [np.mean(cosines(buyers[rows], bought)) for rows in (slice(None), other)]
        told.append(f"{name} {near[0]:.2f} ({near[1]:.2f})")
    return (
        "Mean cosine of a purchase to what its buyer had looked at (to what another buyer had): "
        f"{', '.join(told)}. The further apart the two, the more a modality can add to behaviour."
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)


def guests(
    rec: recfuse.MultimodalRecommender,
    content: dict[str, np.ndarray],
    clock: np.ndarray,
    visits: tuple[Any, Any, np.ndarray],
) -> Comparison:
    """Compare what can be done for a visitor of whom only the last clicks are known."""
    pasts, futures, begins = visits
    seen = session_rows(pasts, futures.shape[1], half_life=3)
    vectors = session_vectors(pasts, content, half_life=3)
    index = recfuse.FusedIndex(content)
    timed = recfuse.FusedIndex({**content, "clock": clock})
    now = {**vectors, "clock": cyclic_time(begins, CYCLES)}
    lists = {
        "popularity": rec.recommend_new_users(seen, weights={"popularity": 1})[0],
        CONTENT: index.topk(vectors, 10, exclude=seen)[0],
        TIMED: timed.topk(now, 10, exclude=seen)[0],
        "session as a history": rec.recommend_new_users(seen)[0],
    }
    results = {name: ranking_metrics(ids, futures, k=10) for name, ids in lists.items()}
    return Comparison("second halves of sessions by their first", results)


def nearer_first(model: recfuse.MultimodalRecommender, log: Log) -> Comparison:
    """Rank the 50 best again, goods of a near store first, and say what that costs and saves.

    Homes and stores are drawn at random, so nobody bought anything because it was near.
    """
    rng = np.random.default_rng(SEED)
    homes = rng.uniform((47, 6), (54, 15), (log.known.n_users, 2))  # latitude, longitude
    stores = rng.uniform((47, 6), (54, 15), (8, 2))[rng.integers(8, size=log.known.n_items)]

    def kilometres(users: Any, ids: Any) -> Any:
        return np.take_along_axis(haversine(homes[users], stores), ids, axis=1)

    def recommend(users: Any, k: int, *, user_items: Any) -> Any:
        ids, scores = model.recommend(users, 50, user_items=user_items)
        near = distance_decay(kilometres(users, ids), half_distance=100)
        return boost(ids, scores, near, k, how="add", weight=1.0)

    lists = {"by taste": model.recommend, "nearer first": recommend}
    table = compare(lists, Split(log.known, log.test, LAST), k=10)
    users = np.arange(100)
    seen = log.known.to_csr()[users]
    away = [kilometres(users, f(users, 10, user_items=seen)[0]).mean() for f in lists.values()]
    cost = table.difference("nearer first", "by taste", METRIC)
    print(
        f"   {away[0]:.0f} km to the goods of a list, {away[1]:.0f} km with the nearer first; "
        f"that changes {METRIC} by {cost.mean:+.4f} [{cost.low:+.4f}, {cost.high:+.4f}]"
    )
    return table


def live(rec: recfuse.MultimodalRecommender, visit: list[int], titles: np.ndarray) -> None:
    """Fold a session in after every event."""
    model = rec.models_["als"]
    for n in range(1, len(visit) + 1):
        began = time.perf_counter()
        row = session_rows([visit[:n]], len(titles), half_life=3)
        ids, _ = recfuse.topk(model.fold_in(row), model.item_factors_, k=3, exclude=row)
        took = 1000 * (time.perf_counter() - began)
        print(f"   {titles[visit[n - 1]]:32} -> {'; '.join(titles[ids[0]])} ({took:.1f} ms)")


def stock(content: dict[str, np.ndarray], new: dict[str, np.ndarray], query: int) -> None:
    """Let goods come, change and go in an index; it equals, byte for byte, one made anew."""
    index = recfuse.FusedIndex(content)
    first = {name: x[[query]] for name, x in content.items()}
    in_stock = np.delete(np.arange(index.n_items), np.arange(0, index.n_items, 3))
    ids, _ = index.topk(first, 10, allow=in_stock)
    print(f"   a third is sold out; the 10 best have none of it: {not (ids % 3 == 0).any()}")
    began = time.perf_counter()
    index.add(new)
    dearer = {**{name: x[[5]] for name, x in content.items()}, "price": content["price"][[7]]}
    index.update([5], dearer)
    index.remove([0, 1])
    took = 1000 * (time.perf_counter() - began)
    changed = {name: np.concatenate([x, new[name]]) for name, x in content.items()}
    changed["price"][5] = content["price"][7]
    anew = recfuse.FusedIndex({name: x[2:] for name, x in changed.items()})
    same = all(
        np.array_equal(a, b)
        for a, b in zip(index.topk(first, 10), anew.topk(first, 10), strict=True)
    )
    print(
        f"   {len(new['price'])} came, 1 became dearer, 2 went, in {took:.1f} ms; "
        f"the index equals one made anew: {same}"
    )


def forget(
    rec: recfuse.MultimodalRecommender,
    known: recfuse.Interactions,
    items: dict[str, np.ndarray],
    regularization: float,
) -> None:
    """Forget the busiest customer, and hold the result against a fit that never saw them."""
    user = int(np.bincount(known.user_index).argmax())
    began = time.perf_counter()
    forgotten = forget_users(rec, [user])
    took = time.perf_counter() - began
    rest = known.select(known.user_index != user)
    never = recommender(regularization, rec.weights_).fit(rest, items)
    others = np.delete(np.arange(known.n_users), user)
    a, b = (model.recommend(others, 10) for model in (forgotten, never))
    print(
        f"   {known.users[user]}, {(known.user_index == user).sum()} goods, in {took:.2f} s; lists "
        f"of all others equal those of a fit without them: {same_bytes(a, b)}"
    )


def same_bytes(a: Any, b: Any) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def save(rec: recfuse.MultimodalRecommender) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.recfuse"
        rec.save(path)
        users = np.arange(100)
        same = same_bytes(recfuse.load(path).recommend(users), rec.recommend(users))
        print(f"   {path.stat().st_size / 2**20:.1f} MiB; lists of the loaded model equal: {same}")


def main(arguments: list[str] | None = None) -> dict[str, Comparison]:
    options = shared.options("A shop, from its raw log to recommendations.").parse_args(arguments)
    step = shared.Steps()

    step("Read and clean the log")
    shop = generate(*((400, 300) if options.small else (2500, 3000)), seed=SEED)
    end = int(shop.log["time"].max())
    cuts = [end - 30 * DAY, end - 15 * DAY]
    report = Report()
    read(shop.log, cuts, report=report)
    print(report)

    step("Choose on the purchases of the 15 days before the last 15")
    params = choose(shop.log, cuts)
    log = read(shop.log, cuts, params["half_life"] and params["half_life"] * DAY)

    step("Vectors of the goods, and what is wrong with all that")
    every = describe(shop.goods)
    place = {item: row for row, item in enumerate(shop.goods["item"])}
    order = np.array([place[item] for item in log.known.items])
    new = np.setdiff1d(np.arange(len(place)), order)
    content = {name: x[order] for name, x in every.items()}
    print(check(log.known, content))

    step("Fit, and what every modality is worth on the purchases of the last 15 days")
    models = fit(log, content, params["regularization"])
    tables, rec = compare_groups(models, log), models[FUSED]
    print(shared.gain_table(tables, BASELINE, METRIC))
    print(shared.in_words(tables, BASELINE, METRIC, combined=FUSED))
    print(reasons(log, content))
    print("weights:", ", ".join(f"{name} {w:.2f}" for name, w in rec.weights_.items()))

    step("The same in money: value@10 is what the bought goods on a list of 10 cost")
    money = compare(
        models, Split(log.known, log.test, LAST), k=10, item_values=shop.goods["price"][order]
    )
    print(money.to_text(["recall", "ndcg", "value", "value_ndcg"]))
    print(money.difference(FUSED, BASELINE, "value@10"))

    step("The same lists, with goods from a near store first")
    tables["near"] = nearer_first(rec, log)

    step("Visitors without a name: the second half of a session by the first")
    visits = anonymous(shop.log, cuts[1], log.known)
    tables["guests"] = guests(rec, content, clock_vectors(log.known), visits)
    print(shared.gain_table({"guests": tables["guests"]}, "popularity", METRIC))
    hour = tables["guests"].difference(TIMED, CONTENT, METRIC)
    print(
        f"Hour and weekday {SAID[shared.verdict(hour)]}: {hour.mean:+.4f} "
        f"[{hour.low:+.4f}, {hour.high:+.4f}]; in this shop people come at any time for anything."
    )

    step("One of them, after every click: the three goods to show next")
    titles = shop.goods["title"][order]
    live(rec, max(visits[0], key=len), titles)

    step("Goods come, change and go")
    stock(content, {name: x[new] for name, x in every.items()}, query=0)

    step("Forget a customer")
    forget(rec, log.known, content, params["regularization"])

    step("Save and load")
    save(rec)
    if options.plot:
        plots.contribution_bars(rec.explain(0, int(rec.recommend(0, 1)[0][0, 0]))).savefig(
            options.plot
        )
    step.done()
    return tables


if __name__ == "__main__":
    main()
