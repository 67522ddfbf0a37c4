"""Requests of many clients as few searches: who is answered, when, and with whom."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import time
import weakref

import pytest

import service_models as models

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from recfuse.service.asks import Ask
from recfuse.service.batching import Batcher, Busy
from recfuse.service.metrics import Metrics
from recfuse.service.opening import open_model
from recfuse.service.options import Options


def test_requests_at_once_are_one_search(tmp_path):
    """Every one gets the answer it would get alone, and nearly all share a search."""
    path = tmp_path / "model.recfuse"
    model = models.als()
    model.save(path)

    async def run(client, service):
        bodies = [
            {"user": f"u{i % 30}", "k": 1 + i % 7, "exclude": [f"i{i % 40}"] if i % 3 else None}
            for i in range(120)
        ]
        searches = 0
        search = service.model.search

        def counted(asks, contributions):
            nonlocal searches
            searches += 1
            while searches == 1 and service.batcher.waiting < 120 - len(asks):
                time.sleep(0.001)
            return search(asks, contributions)

        service.model.search = counted
        together = await asyncio.gather(*[client.post("/recommend", json=b) for b in bodies])
        assert searches <= 4
        alone = [await client.post("/recommend", json=b) for b in bodies]
        assert [r.content for r in together] == [r.content for r in alone]
        assert all(r.status_code == 200 for r in together)
        text = (await client.get("/metrics")).text
        assert 'recfuse_requests_total{route="/recommend",status="200"} 240.0' in text
        for name in ("queue", "search", "respond"):
            (count,) = re.findall(rf'recfuse_stage_seconds_count\{{stage="{name}"\}} (\d+)', text)
            assert int(count) >= (240 if name == "queue" else 121)
        for name in ("recfuse_candidates_rescored", "recfuse_queue_length", "recfuse_batch_size"):
            assert name in text
        # Of so few items nothing is screened, which is not that nothing was scored.
        assert "\nrecfuse_candidates_rescored NaN\n" in text
        service.model.rescored = lambda: 17.0
        assert "\nrecfuse_candidates_rescored 17.0\n" in (await client.get("/metrics")).text
        service.model.rescored = lambda: None  # of a new model
        assert "\nrecfuse_candidates_rescored NaN\n" in (await client.get("/metrics")).text

    models.with_client(Options(model=path, feedback=False), run)


def test_one_poisoned_request_fails_alone(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        search = service.model.search

        def poisoned(asks, contributions):
            if any(ask.k == 3 for ask in asks):
                raise ValueError("k must not be 3")
            return search(asks, contributions)

        service.model.search = poisoned
        answers = await asyncio.gather(
            *[client.post("/recommend", json={"user": "u1", "k": k}) for k in (2, 3, 4, 5)]
        )
        assert [a.status_code for a in answers] == [200, 422, 200, 200]

    models.with_client(Options(model=path, feedback=False), run)


def test_a_full_queue_says_when_to_come_again(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        answers = await asyncio.gather(
            *[client.post("/recommend", json={"user": "u1"}) for _ in range(50)]
        )
        codes = [a.status_code for a in answers]
        assert set(codes) == {200, 503}
        assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 503)
        assert (await client.post("/recommend", json={"user": "u1"})).status_code == 200

    models.with_client(Options(model=path, feedback=False, max_queue=4), run)


def batched(run, **options):
    """Run `run(batcher)` with a batcher of its own."""

    async def main():
        limits = {"max_batch": 64, "max_queue": 1000, "max_wait": 0.0}
        batcher = Batcher(**limits | options, metrics=Metrics())
        batcher.start()
        try:
            return await asyncio.wait_for(run(batcher), 60)
        finally:
            await batcher.close()

    return asyncio.run(main())


class Searches:
    """A search that waits until it is let go; it remembers who was asked for together."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()

    def __call__(self, requests):
        self.batches.append(list(requests))
        assert self.go.wait(60)
        return list(requests)

    async def begun(self):
        while not self.batches:
            await asyncio.sleep(0.001)

    def sizes(self):
        return [len(batch) for batch in self.batches]


def asking(batcher, solve, requests):
    return [asyncio.create_task(batcher.ask("a", solve, one)) for one in requests]


@pytest.mark.parametrize(
    ("waiting", "most", "sizes"),
    [
        (20, 64, [1, 16, 4]),  # few: no less than 16
        (100, 64, [1, 50, 50]),  # half of what is under way
        (100, 24, [1, 24, 24, 24, 24, 4]),
        (300, 64, [1, 64, 64, 64, 64, 44]),
    ],
)
def test_a_search_is_of_half_of_what_is_under_way(waiting, most, sizes):
    async def run(batcher):
        solve = Searches()
        first = asking(batcher, solve, [-1])
        await solve.begun()
        others = asking(batcher, solve, range(waiting))
        await asyncio.sleep(0)
        solve.go.set()
        assert await asyncio.gather(*first, *others) == [-1, *range(waiting)]
        return solve.sizes()

    assert batched(run, max_batch=most) == sizes


def test_everybody_is_answered_once_by_one_search_at_a_time():
    running, seen = threading.Lock(), []

    def solve(requests):
        assert running.acquire(blocking=False)
        time.sleep(0.0003 * (len(requests) % 5))
        seen.extend(requests)
        running.release()
        return [-one for one in requests]

    async def client(batcher, first):
        for one in range(first, first + 60):
            assert await batcher.ask(one % 3, solve, one) == -one

    async def run(batcher):
        await asyncio.gather(*[client(batcher, 100 * n) for n in range(40)])
        assert batcher.waiting == 0

    batched(run, max_wait=0.001)
    assert sorted(seen) == [100 * n + i for n in range(40) for i in range(60)]


def test_a_batcher_that_ends_answers_what_waits():
    async def main():
        batcher = Batcher(max_batch=4, max_queue=100, max_wait=5.0, metrics=Metrics())
        batcher.start()
        solve = Searches()
        asked = asking(batcher, solve, range(20))
        await solve.begun()
        ending = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.01)
        solve.go.set()
        assert await asyncio.wait_for(asyncio.gather(*asked), 4) == list(range(20))
        await asyncio.wait_for(ending, 4)
        assert not any(thread.name == "search" for thread in threading.enumerate())

    asyncio.run(main())


class Ended(BaseException):
    """As what a library in Rust raises when it panics."""


def test_whatever_a_search_raises_is_the_answer():
    def raises(requests):
        raise Ended

    async def run(batcher):
        for solve in (raises, lambda requests: [0] * (len(requests) + 1), lambda requests: []):
            found = await asyncio.gather(*asking(batcher, solve, range(3)), return_exceptions=True)
            assert [type(answer) for answer in found] == [RuntimeError] * 3
        assert await batcher.ask("a", list, 7) == 7

    batched(run)


def test_a_panic_is_an_error_of_the_server(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        search = service.model.search

        def panics(asks, contributions):
            raise Ended

        service.model.search = panics
        answer = await asyncio.wait_for(client.post("/recommend", json={"user": "u1"}), 20)
        assert answer.status_code == 500
        service.model.search = search
        assert (await client.post("/recommend", json={"user": "u1"})).status_code == 200

    models.with_client(Options(model=path, feedback=False), run)


def test_what_was_searched_is_not_held_while_nobody_asks():
    async def run(batcher):
        solve = Searches()
        solve.go.set()
        gone = weakref.ref(solve)
        assert await batcher.ask("a", solve, 1) == 1
        del solve
        for _ in range(1000):  # the thread may still be on its way out of the search
            if gone() is None:
                break
            await asyncio.sleep(0.001)
        assert gone() is None

    batched(run)


@pytest.mark.parametrize("make", [models.als, models.fused])
def test_a_model_that_is_replaced_is_gone_at_once(tmp_path, make):
    """The service leaves garbage of its first model to nobody."""
    path = tmp_path / "model.recfuse"
    make().save(path)
    gc.collect()
    gc.disable()
    try:
        model = open_model(path, 1)
        model.search([Ask(1, 0)], True)
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_the_queue_takes_what_it_may_and_no_more():
    async def run(batcher):
        solve = Searches()
        first = asking(batcher, solve, [-1])
        await solve.begun()
        others = asking(batcher, solve, range(7))
        await asyncio.sleep(0)
        assert batcher.waiting == 5
        solve.go.set()
        found = await asyncio.gather(*first, *others, return_exceptions=True)
        assert found[:6] == [-1, 0, 1, 2, 3, 4] and [type(x) for x in found[6:]] == [Busy, Busy]
        assert batcher.waiting == 0
        assert await batcher.ask("a", solve, 9) == 9

    batched(run, max_queue=5)


def test_who_has_gone_is_not_searched_for():
    async def run(batcher):
        solve = Searches()
        first = asking(batcher, solve, [-1])
        await solve.begun()
        others = asking(batcher, solve, range(4))
        await asyncio.sleep(0)
        others[1].cancel()
        await asyncio.sleep(0)
        solve.go.set()
        await asyncio.gather(*first, others[0], *others[2:])
        return solve.batches

    assert batched(run) == [[-1], [0, 2, 3]]


def test_nobody_waits_longer_than_is_said():
    """After a batch of three a fourth waits for company as long as it may; after a pause, not."""

    async def run(batcher):
        solve, loop = Searches(), asyncio.get_running_loop()
        solve.go.set()
        asked = asking(batcher, solve, range(3))
        await asyncio.gather(*asked)
        begun = loop.time()
        await batcher.ask("a", solve, 3)
        assert 0.9 < loop.time() - begun < 10
        await asyncio.gather(*asking(batcher, solve, range(3)))
        await asyncio.sleep(1.5)
        begun = loop.time()
        await batcher.ask("a", solve, 4)
        assert loop.time() - begun < 0.8
        # Who comes in threes is not kept waiting at all.
        await asyncio.gather(*asking(batcher, solve, range(3)))
        begun = loop.time()
        await asyncio.gather(*asking(batcher, solve, range(3)))
        assert loop.time() - begun < 0.8

    batched(run, max_wait=1.0)


def test_requests_of_two_models_are_two_searches(tmp_path):
    """A model that comes while requests wait answers those that come after it, and only those."""
    path = tmp_path / "model.recfuse"
    old, new = models.als(), models.als(factors=3, alpha=40.0)
    old.save(path)

    async def run(client, service):
        async def best():
            answer = await client.post("/recommend", json={"user": "u1", "k": 5})
            return [entry["item"] for entry in answer.json()["items"]]

        search, held = service.model.search, Searches()

        def slow(asks, contributions):
            held(asks)
            return search(asks, contributions)

        service.model.search = slow
        before = [asyncio.create_task(best())]
        await held.begun()
        before += [asyncio.create_task(best()) for _ in range(3)]
        while service.batcher.waiting < 3:
            await asyncio.sleep(0.001)
        new.save(path)
        await service.reload()
        after = [asyncio.create_task(best()) for _ in range(3)]
        while service.batcher.waiting < 6:
            await asyncio.sleep(0.001)
        held.go.set()
        of_old, of_new = (m.recommend(["u1"], k=5)[0][0].tolist() for m in (old, new))
        assert of_old != of_new
        assert await asyncio.gather(*before) == [of_old] * 4
        assert await asyncio.gather(*after) == [of_new] * 3

    models.with_client(Options(model=path, feedback=False), run)
