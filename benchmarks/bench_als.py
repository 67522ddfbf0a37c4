"""`pytest benchmarks/bench_als.py`; the cases are those of `recfuse bench als`."""

OP = "als"


def bench_als(race, case):
    race(case)
