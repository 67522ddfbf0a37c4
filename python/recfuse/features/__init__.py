"""Items and users as vectors: text, images, sound, attributes, places, moments and friends."""

from __future__ import annotations

from recfuse.features.attributes import AttributeEncoder
from recfuse.features.context import cyclic_time, haversine, nearby, sphere_vectors
from recfuse.features.pooling import history_profiles, pool_sequences
from recfuse.features.social import friends_taste
from recfuse.features.text import join_fields, minilm

__all__ = [
    "AttributeEncoder",
    "cyclic_time",
    "friends_taste",
    "haversine",
    "history_profiles",
    "join_fields",
    "minilm",
    "nearby",
    "pool_sequences",
    "sphere_vectors",
]
