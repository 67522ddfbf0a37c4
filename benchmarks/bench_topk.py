"""`pytest benchmarks/bench_topk.py`; the cases are those of `recfuse bench topk`."""

OP = "topk"


def bench_topk(race, case):
    race(case)
