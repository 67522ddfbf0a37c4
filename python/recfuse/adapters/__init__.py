"""recfuse inside of other recommender libraries: each module here needs the library of its name.

`recfuse.adapters.rectools` is a ranker, `recfuse.adapters.lenskit` has scorers for pipelines, and
`recfuse.adapters.cornac` models for experiments. The extras of the same names install what they
need; ``docs/compat.md`` has a program for each, and says what differs.
"""
