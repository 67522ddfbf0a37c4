# The ops that the GPU has: same signatures as _core, written down once, there.

from recfuse._core import FusedIndex as FusedIndex

def unusable_reason() -> str: ...  # why the GPU cannot be used; empty where it can
