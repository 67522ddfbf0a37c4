"""`pytest benchmarks/bench_cosine_knn.py`; the cases are those of `recfuse bench cosine_knn`."""

OP = "cosine_knn"


def bench_cosine_knn(race, case):
    race(case)
