"""What an op will allocate, told before it runs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from recfuse._available import available_bytes
from recfuse._buffers import Buffer
from recfuse._memory_plans import PLANS
from recfuse._plan_sizes import planned_device
from recfuse.backend import resolve_backend

__all__ = ["Buffer", "MemoryPlan", "plan_memory"]


@dataclass(frozen=True, repr=False)
class MemoryPlan:
    """The answer of `plan_memory`; its representation is a table.

    Attributes
    ----------
    op : str
    buffers : tuple of Buffer
        Without those of no bytes.
    blocks : dict of str to int
        How the op cuts its work: workers, queries and items that are looked at together.
    device : {'cpu', 'cuda'}
        Where the buffers are.
    """

    op: str
    buffers: tuple[Buffer, ...]
    blocks: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"

    def bytes_of(self, phase: str) -> int:
        """Return the bytes of all buffers of a phase."""
        return sum(buffer.n_bytes for buffer in self.buffers if buffer.phase == phase)

    @property
    def input_bytes(self) -> int:
        """What the caller passes: used in place, so it may be mapped from a file of any size."""
        return self.bytes_of("input")

    @property
    def kept_bytes(self) -> int:
        """What lasts as long as the op or the handle."""
        return self.bytes_of("kept")

    @property
    def peak_bytes(self) -> int:
        """The most that is allocated at one time, beyond the inputs."""
        phases = {buffer.phase for buffer in self.buffers} - {"input", "kept"}
        return self.kept_bytes + max(map(self.bytes_of, phases), default=0)

    @property
    def fits(self) -> bool:
        """Whether this process can allocate `peak_bytes` now (limits and cgroups counted).

        On a GPU, what is free there; DeviceError where there is none.
        """
        if self.device == "cuda":
            free: int = resolve_backend("cuda").ops.memory_info()[0]
            return self.peak_bytes <= free
        return self.peak_bytes <= available_bytes()

    def __repr__(self) -> str:
        rows = [(b.phase, b.name, f"{b.n_bytes:,}") for b in self.buffers]
        rows.append(("", "peak, beyond the inputs", f"{self.peak_bytes:,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        where = "" if self.device == "cpu" else f" on {self.device}"
        lines = [f"MemoryPlan({self.op}), bytes{where}"]
        lines += [
            f"  {phase:<{widths[0]}}  {name:<{widths[1]}}  {n_bytes:>{widths[2]}}"
            for phase, name, n_bytes in rows
        ]
        lines += [f"  {name}: {size:,}" for name, size in self.blocks.items()]
        return "\n".join(lines)


def plan_memory(op: str, **sizes: Any) -> MemoryPlan:
    """Tell what an op will allocate, buffer by buffer, without running it.

    Parameters
    ----------
    op : {'topk', 'fuse_topk', 'FusedIndex', 'rank_pairs', 'cosine_knn', 'als'}
        'FusedIndex' is an index that is searched again and again, 'rank_pairs' one that ranks given
        pairs, 'als' a fit.
    **sizes
        'topk', 'fuse_topk', 'FusedIndex'
            ``n_queries``, ``n_items``, ``dims`` (an int, a sequence, or a mapping modality -> int),
            ``k``; ``dtype`` of queries and items, 'float32' by default; but for 'FusedIndex',
            ``mapped``: whether the items lie in a file, so that another type is converted in
            blocks. A plan of the GPU is for matrices that come from the host; those that are on it
            already are used in place. ``device_bytes``: what is free
            there, by default on the GPU at hand; items that are more go through it in blocks.
        'rank_pairs'
            ``n_queries``, ``n_items``, ``dims``, ``n_pairs`` of all queries; ``n_excluded`` of all
            queries, 0 by default; ``device_bytes`` as above. Queries with very many pairs, or
            excluded items, take up to twice the plan of a GPU.
        'cosine_knn'
            ``n_rows``, ``n_cols``, ``nnz``, ``k``; ``values``: 'ones', 'whole' (multiples of 1 / 16
            below 16) or 'real' (default); ``norm`` as in `cosine_knn`.
        'als'
            ``n_users``, ``n_items``, ``nnz``, ``factors``; ``solver``, ``objective``, ``biases``
            as in `AlternatingLeastSquares`. On a GPU ``device_bytes``, by default what is free on
            the one at hand: interactions that have no room there are streamed, and `blocks` says
            how many rows and interactions a piece has at most. What the host holds for that, 16
            bytes for each interaction, is not counted.
        all
            ``num_threads``, 0 by default: that of `doctor`. ``device``: 'cuda' for the plan of the
            GPU, 'auto' by default, for which the environment decides.

    Returns
    -------
    MemoryPlan
        Of this machine: its threads and its instruction set. The peak is held to measurements by a
        test: an op takes at most 5 % and 4 MB more; the plan is at most 25 % and 32 MB above what
        it takes where every list is full. What the values decide is counted as if they wanted it:
        busy columns of `cosine_knn` in blocks, ALS factors that are not rounded to bfloat16.
        Filters, contributions, presence flags, rows of ALS that are solved again in float64 and
        whatever else the allocator keeps for later are not counted.

    Raises
    ------
    TypeError
        If a size is missing, unknown, or no integer.
    ValueError
        If `op` or a name is unknown, or a size is out of range.

    Examples
    --------
    >>> import recfuse
    >>> plan = recfuse.plan_memory("topk", n_queries=1, n_items=10**6, dims=64, k=10, num_threads=1)
    >>> plan.input_bytes, plan.kept_bytes
    (256000256, 17000000)
    """
    if op not in PLANS:
        raise ValueError(f"plan_memory: op must be one of {', '.join(PLANS)}; got {op!r}")
    make = PLANS[op]
    known = inspect.signature(make).parameters
    for name in sizes:
        if name not in known:
            raise TypeError(f"plan_memory: sizes of {op!r} must be of {list(known)}; got {name!r}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in sizes:
            raise TypeError(f"plan_memory: {op!r} must be given {name}; got {list(sizes)}")
    buffers, blocks = make(**sizes)
    device = planned_device(sizes.get("device", "cpu" if "device" not in known else "auto"))
    return MemoryPlan(op, tuple(b for b in buffers if b.n_bytes > 0), blocks, device)
