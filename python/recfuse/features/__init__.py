"""Items and users as vectors: text, images, sound, attributes, places, moments and friends."""

from __future__ import annotations

from recfuse.features.attributes import AttributeEncoder
from recfuse.features.audio import AudioEncoder, PatchEncoder
from recfuse.features.context import cyclic_time, haversine, nearby, sphere_vectors
from recfuse.features.images import ColourHistogram, ImageEncoder
from recfuse.features.pooling import history_profiles, pool_sequences
from recfuse.features.social import friends_taste
from recfuse.features.spectral import chroma, mfcc
from recfuse.features.text import join_fields, minilm
from recfuse.features.together import EncodedItems, encode_all
from recfuse.features.video import VideoEncoder
from recfuse.features.words import TfidfEncoder, embedding_bag, read_word_vectors

__all__ = [
    "AttributeEncoder",
    "AudioEncoder",
    "ColourHistogram",
    "EncodedItems",
    "ImageEncoder",
    "PatchEncoder",
    "TfidfEncoder",
    "VideoEncoder",
    "chroma",
    "cyclic_time",
    "embedding_bag",
    "encode_all",
    "friends_taste",
    "haversine",
    "history_profiles",
    "join_fields",
    "mfcc",
    "minilm",
    "nearby",
    "pool_sequences",
    "read_word_vectors",
    "sphere_vectors",
]
