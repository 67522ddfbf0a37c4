"""What a model may tell about single people, and how they leave it."""

from __future__ import annotations

from recfuse.privacy.anonymity import k_anonymous
from recfuse.privacy.removal import forget_users

__all__ = ["forget_users", "k_anonymous"]
