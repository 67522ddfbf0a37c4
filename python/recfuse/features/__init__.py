"""Items and users as vectors: text and attributes."""

from __future__ import annotations

from recfuse.features.attributes import AttributeEncoder
from recfuse.features.text import join_fields, minilm

__all__ = ["AttributeEncoder", "join_fields", "minilm"]
