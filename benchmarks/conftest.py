"""Runs the cases of `recfuse.bench` under pytest-benchmark, for its table, JSON and history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from recfuse.bench import Case, Race, measure_ceilings
from recfuse.bench.cases import cases_of
from recfuse.bench.machine import default_threads, describe_machine, git_describe
from recfuse.bench.report import details

_RESULTS = pytest.StashKey[list[dict[str, Any]]]()
_clock = 0.0


def seconds_timed() -> float:
    """Tell the time that contenders have spent: their processes read the clock, not this one."""
    return _clock


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("recfuse")
    group.addoption("--quick", action="store_true", help="small sizes")
    group.addoption("--threads", type=int, default=0, help="for every contender")
    group.addoption("--rounds", type=int, default=5, help="times per contender (5)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for result in config.stash[_RESULTS]:
        terminalreporter.write_line("\n" + details(result))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a benchmark the cases of the op that its module names."""
    if "case" in metafunc.fixturenames:
        cases = cases_of(metafunc.module.OP, quick=metafunc.config.getoption("quick"))
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=seconds_timed, group=item.module.OP))


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    threads = config.getoption("threads") or default_threads()
    machine_info["recfuse"] = describe_machine(threads) | {"git": git_describe()}


@pytest.fixture
def race(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Return what runs a case: recfuse is what pytest-benchmark times, the peers go in between."""
    threads = request.config.getoption("threads") or default_threads()
    rounds = request.config.getoption("rounds")

    def run(case: Case) -> None:
        ceilings = measure_ceilings(threads)
        with Race(case, num_threads=threads) as contest:

            def ours() -> None:
                global _clock
                _clock += contest.sample_ours()

            benchmark.pedantic(ours, setup=contest.sample_others, rounds=rounds)
            result = contest.result(ceilings.best(measure_ceilings(threads)))
        benchmark.extra_info["recfuse"] = result
        request.config.stash[_RESULTS].append(result)

    return run
