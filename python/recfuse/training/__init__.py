"""Batches, negatives and augmentation for training elsewhere: NumPy out, seeded, no framework.

recfuse fits no networks. Programs that do (see ``recipes/``) need the same four things: shuffled
batches of what people did, items that they did not choose, and two kinds of noise that make a
network use all that it is given. All are functions of a seed and the number of the epoch, so a
training that was interrupted goes on with the same batches.
"""

from __future__ import annotations

from recfuse.training.augmentation import item_dropout, modality_dropout
from recfuse.training.batches import Batch, InteractionBatches, NegativeSampler

__all__ = ["Batch", "InteractionBatches", "NegativeSampler", "item_dropout", "modality_dropout"]
