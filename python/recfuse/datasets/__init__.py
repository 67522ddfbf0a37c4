"""Small real data, a text encoder and generated data, for demos, tests and benchmarks."""

from __future__ import annotations

from recfuse.datasets.encoders import TextModel, minilm
from recfuse.datasets.film_credits import Credits, credits
from recfuse.datasets.films import Films
from recfuse.datasets.generated import Synthetic, synthetic
from recfuse.datasets.movielens import MovieLens, Users, movielens_100k

__all__ = [
    "Credits",
    "Films",
    "MovieLens",
    "Synthetic",
    "TextModel",
    "Users",
    "credits",
    "minilm",
    "movielens_100k",
    "synthetic",
]
