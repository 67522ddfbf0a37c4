"""`pytest benchmarks/bench_fuse_topk.py`; the cases are those of `recfuse bench fuse_topk`."""

OP = "fuse_topk"


def bench_fuse_topk(race, case):
    race(case)
