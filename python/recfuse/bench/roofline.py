"""The limits of this machine, measured, and the least time that a workload takes under them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from recfuse.backend import resolve_backend
from recfuse.bench.case import Cost
from recfuse.bench.machine import last_cache_bytes

__all__ = ["Ceilings", "Floor", "floor", "measure_ceilings"]


@dataclass(frozen=True)
class Floor:
    """The least time for a `Cost`, and which ceiling sets it."""

    seconds: float
    bound: str


@dataclass(frozen=True)
class Ceilings:
    """Rates per second that loops which do nothing else reach.

    Attributes
    ----------
    flops, int8 : float
        float32 and int8 multiply-adds on registers, two operations each; `int8` is 0 where the
        instruction set has no screen in it.
    memory, cache : float
        Bytes read from an array far larger than the last cache, and from one of half its size.
    updates : float
        Increments of scattered counters that stay in the first cache.
    cache_bytes : int
        Of a working set, this much is served at the rate of `cache`.
    in_float16 : bool
        Whether `flops` are those of float16, as on a GPU, so that items may be read in it.

    A rate of 0 is not known and sets no floor.
    """

    flops: float
    memory: float
    cache: float
    updates: float
    cache_bytes: int
    int8: float = 0.0
    in_float16: bool = False

    def best(self, other: Ceilings) -> Ceilings:
        """Return the higher of each rate: whatever slowed the other down was not the machine."""
        rates = {name: max(value, getattr(other, name)) for name, value in asdict(self).items()}
        return Ceilings(**rates)


def measure_ceilings(num_threads: int) -> Ceilings:
    """Measure all of them, about a second."""
    core = resolve_backend("cpu").ops
    cache_bytes = last_cache_bytes()
    far_larger = min(max(4 * cache_bytes, 1 << 28), 1 << 30)
    return Ceilings(
        flops=core.measure_flops(num_threads),
        memory=core.measure_bandwidth(far_larger, num_threads),
        cache=core.measure_bandwidth(cache_bytes // 2, num_threads),
        updates=core.measure_updates(num_threads),
        cache_bytes=cache_bytes,
        int8=core.measure_int8_operations(num_threads),
    )


def floor(cost: Cost, ceilings: Ceilings) -> Floor:
    """Return the time that the scarcest resource needs, were it used perfectly.

    Examples
    --------
    >>> from recfuse.bench.case import Cost
    >>> rates = Ceilings(flops=1e9, memory=1e8, cache=2e8, updates=1e9, cache_bytes=1000)
    >>> floor(Cost(flops=2e9, bytes=1e8), rates)
    Floor(seconds=2.0, bound='multiply-adds')
    """
    in_int8 = ceilings.int8 > ceilings.flops and cost.int8_bytes > 0
    moved = cost.int8_bytes if in_int8 else cost.bytes
    if ceilings.in_float16:
        moved = cost.float16_bytes
    # At best the last cache is full of what is read again.
    cached = min(1.0, ceilings.cache_bytes / (cost.working_set or moved))
    transfer = moved * (cached / ceilings.cache + (1 - cached) / ceilings.memory)
    products = "int8 multiply-adds" if in_int8 else "multiply-adds"
    if ceilings.in_float16:
        products = "float16 multiply-adds"
    needs = {
        products: cost.flops / (ceilings.int8 if in_int8 else ceilings.flops),
        "memory" if cached < 1 else "last cache": transfer,
        "updates": cost.updates / ceilings.updates if ceilings.updates else 0.0,
    }
    bound = max(needs, key=lambda name: needs[name])
    return Floor(needs[bound], bound)
