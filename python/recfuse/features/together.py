"""Several modalities encoded at once: one by one, side by side, or item by item."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import as_int
from recfuse._named import named
from recfuse._progress import progress
from recfuse.features._media import Encoded, Errors, MediaEncoder, Unreadable, labelled
from recfuse.features._store import VectorStore

__all__ = ["EncodedItems", "encode_all"]

Mode = Literal["sequential", "parallel", "fused"]
Rows = NDArray[np.intp]


class EncodedItems(NamedTuple):
    """Vectors by modality, as `FusedIndex` takes them.

    Attributes
    ----------
    vectors : dict of str to ndarray of shape (n_items, dim_m), float32
        A zero row for an item that has no such modality or could not be read.
    present : dict of str to ndarray of shape (n_items,), bool
    failures : dict of str to dict of int to str
        By modality, row to reason; empty with ``errors="raise"``.
    """

    vectors: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.bool_]]
    failures: dict[str, dict[int, str]]


@named("encode_all")
def encode_all(
    inputs: Mapping[str, Sequence[Any]],
    encoders: Mapping[str, Any],
    *,
    mode: Mode = "parallel",
    chunk: int = 256,
    cache: str | os.PathLike[str] | None = None,
    errors: Errors = "raise",
    show_progress: bool = False,
) -> EncodedItems:
    """Encode the items of a catalogue in every modality.

    Parameters
    ----------
    inputs : mapping of str to sequence
        By modality, one input per item, or None where an item has no such modality: texts, images,
        sounds, rows of an array.
    encoders : mapping of str to encoder
        What has ``encode(inputs)``: `OnnxEncoder`, `minilm`, `ImageEncoder`, `AudioEncoder`, a
        fitted `TfidfEncoder` with `dim`; or a function of a list that returns (n, dim).
    mode : {'parallel', 'sequential', 'fused'}, default='parallel'
        'sequential' encodes one modality after the other, in the order of `inputs`. 'parallel'
        has a thread for each modality. 'fused' encodes a chunk of items in all modalities, then
        the next. The chunks are the same, so the vectors are the same bytes for an encoder that
        repeats itself.
    chunk : int, default=256
        Inputs encoded at a time, and kept at a time in `cache`: what an interrupt can lose.
    cache : str or path-like, optional
        A file (SQLite) that keeps the vector of every input under a hash of encoder and content: an
        input is encoded once, however often, in whatever order and under whatever file name it
        comes. For encoders with a `fingerprint`: those of recfuse but `TfidfEncoder`.
    errors : {'raise', 'skip'}, default='raise'
        'skip' leaves out what an encoder of images or sound cannot read.
    show_progress : bool, default=False
        Show a bar on standard error (extra ``recfuse[progress]``).

    Returns
    -------
    vectors, present, failures : dict
        See `EncodedItems`; ``FusedIndex(out.vectors, present=out.present)`` is the next step.

    Raises
    ------
    ValueError
        If modalities or numbers of items differ, an option is unknown, an encoder does not return
        one finite row per input, or an input cannot be read with ``errors='raise'``. What was
        encoded before stays in `cache`.
    TypeError
        If an encoder does not encode.
    FormatError
        If `cache` is damaged or is another file.

    Notes
    -----
    An encoder's own rounding may depend on what shares a batch with an input (see `OnnxEncoder`):
    vectors from `cache` keep the bytes that they got first.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.features import ColourHistogram, encode_all
    >>> red, blue = (np.full((2, 2, 3), c, np.uint8) for c in ([255, 0, 0], [0, 0, 255]))
    >>> books = {"cover": [red, None, blue], "title": ["Emma", "Persuasion", "Ulysses"]}
    >>> encoders = {
    ...     "cover": ColourHistogram(2),
    ...     "title": lambda texts: [[len(text), 1.0] for text in texts],
    ... }
    >>> encoded = encode_all(books, encoders)
    >>> encoded.vectors["title"]
    array([[ 4.,  1.],
           [10.,  1.],
           [ 7.,  1.]], dtype=float32)
    >>> encoded.present["cover"]
    array([ True, False,  True])
    """
    _check(inputs, encoders, mode, chunk, errors)
    if cache is None:
        plans = {name: _Plan(name, inputs[name], encoders[name]) for name in inputs}
        return _run(plans, mode, chunk, errors, show_progress, None)
    with closing(VectorStore(cache)) as store:
        plans = {name: _Plan(name, inputs[name], encoders[name], store) for name in inputs}
        return _run(plans, mode, chunk, errors, show_progress, store)


class _Plan:
    """One modality: what is encoded already, what has to be, and what came of it."""

    def __init__(
        self, name: str, inputs: Sequence[Any], encoder: Any, store: VectorStore | None = None
    ) -> None:
        self.name = name
        self.n_items = len(inputs)
        self.failures: dict[int, str] = {}
        self._inputs = inputs
        self._encoder = encoder
        self._found: dict[int, NDArray[np.float32]] = {}
        self._keys: dict[int, bytes] = {}
        self._dim = 0
        present = [row for row in range(len(inputs)) if inputs[row] is not None]
        self._same = {row: row for row in present}  # row -> the row that is encoded for it
        if store is not None and hasattr(encoder, "fingerprint"):
            present = self._missing(present, store)
        self.rows = np.array(present, np.intp)

    def encode(self, rows: Rows, errors: Errors) -> Encoded:
        """Encode some rows; touches nothing of the plan, so that any thread may."""
        inputs = self._inputs
        some = inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[row] for row in rows]
        if isinstance(self._encoder, MediaEncoder):
            # What cannot be read is named by its row in the catalogue, not in the chunk.
            return self._encoder._encode(some, errors, False, lambda n: self._place(rows[n]))
        encode = getattr(self._encoder, "encode", self._encoder)
        vectors = _as_vectors(encode(some), len(rows), self.name)
        return Encoded(vectors, np.ones(len(rows), np.bool_), {})

    def keep(self, rows: Rows, encoded: Encoded, store: VectorStore | None) -> None:
        """Take what `encode` returned."""
        vectors, present, failures = encoded
        good = {
            int(row): vector
            for row, vector, fine in zip(rows, vectors, present, strict=True)
            if fine
        }
        self._found.update(good)
        self.failures.update({int(rows[place]): reason for place, reason in failures.items()})
        if store is not None:
            keys = self._keys
            store.put({keys[row]: vector for row, vector in good.items() if row in keys})
        self._dim = vectors.shape[1]

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the vectors of all items, and which have one."""
        rows = [row for row, same in self._same.items() if same in self._found]
        present = np.zeros(self.n_items, np.bool_)
        present[rows] = True
        dim = len(next(iter(self._found.values()))) if self._found else self._dim
        vectors = np.zeros((self.n_items, dim), np.float32)
        for row in rows:
            vectors[row] = self._found[self._same[row]]
        for row, same in self._same.items():
            if same in self.failures:
                reason = self.failures[same].removeprefix(self._label(same))
                self.failures[row] = self._label(row) + reason
        return vectors, present

    def _place(self, row: int) -> str:
        return f"inputs[{self.name!r}][{row}]"

    def _label(self, row: int) -> str:
        return labelled(self._place(row), self._inputs[row])

    def _missing(self, present: list[int], store: VectorStore) -> list[int]:
        """Return the first row of every content that is not in the store; take what is."""
        first: dict[bytes, int] = {}
        unreadable = []
        salt = str(self._encoder.fingerprint).encode()
        for row in present:
            content = _content(self._encoder, self._inputs[row])
            if content is None:
                unreadable.append(row)
                continue
            key = hashlib.sha256(salt + b"\0" + content).digest()
            self._same[row] = first.setdefault(key, row)
        stored = store.get(list(first))
        self._found.update({first[key]: vector for key, vector in stored.items()})
        self._keys = {row: key for key, row in first.items() if key not in stored}
        return sorted([*self._keys, *unreadable])


def _run(
    plans: Mapping[str, _Plan],
    mode: Mode,
    chunk: int,
    errors: Errors,
    show_progress: bool,
    store: VectorStore | None,
) -> EncodedItems:
    tasks = [
        (plan, plan.rows[start : start + chunk])
        for plan in plans.values()
        for start in range(0, len(plan.rows), chunk)
    ]
    if mode == "fused":
        tasks.sort(key=lambda task: int(task[1][0]) // chunk)  # stable: modalities in their order
    done = _in_threads(tasks, errors) if mode == "parallel" else _in_turn(tasks, errors)
    with closing(done):
        for plan, rows, encoded in progress(
            done, description="encode_all", enabled=show_progress, total=len(tasks)
        ):
            plan.keep(rows, encoded, store)
    results = {name: plan.result() for name, plan in plans.items()}
    return EncodedItems(
        {name: vectors for name, (vectors, _) in results.items()},
        {name: present for name, (_, present) in results.items()},
        {name: dict(sorted(plan.failures.items())) for name, plan in plans.items()},
    )


def _in_turn(
    tasks: Sequence[tuple[_Plan, Rows]], errors: Errors
) -> Generator[tuple[_Plan, Rows, Encoded], None, None]:
    for plan, rows in tasks:
        yield plan, rows, plan.encode(rows, errors)


def _in_threads(
    tasks: Sequence[tuple[_Plan, Rows]], errors: Errors
) -> Generator[tuple[_Plan, Rows, Encoded], None, None]:
    """Run every modality in a thread of its own, so that no encoder is called twice at a time."""
    by_plan: dict[int, list[tuple[_Plan, Rows]]] = {}
    for task in tasks:
        by_plan.setdefault(id(task[0]), []).append(task)
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop = threading.Event()

    def work(mine: Sequence[tuple[_Plan, Rows]]) -> None:
        for plan, rows in mine:
            if stop.is_set():
                return
            try:
                done.put((plan, rows, plan.encode(rows, errors)))
            except BaseException as error:
                done.put(error)
                return

    threads = [threading.Thread(target=work, args=(mine,)) for mine in by_plan.values()]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        # After an error or an interrupt, each ends with the chunk that it is at.
        stop.set()
        for thread in threads:
            thread.join()


def _content(encoder: Any, source: Any) -> bytes | None:
    """Return what an input is made of; None where it cannot be read: encoding it tells why."""
    if isinstance(encoder, MediaEncoder):
        try:
            return bytes(encoder.content(source))
        except (OSError, Unreadable):
            return None
    if isinstance(source, str):
        return b"text" + source.encode()
    array = np.asarray(source)
    if array.dtype == object:
        kind = type(source).__name__
        raise TypeError(f"inputs must be texts, files or arrays where there is a cache; got {kind}")
    return f"{array.dtype.str} {array.shape}".encode() + array.tobytes()


def _as_vectors(x: Any, n: int, name: str) -> NDArray[np.float32]:
    if isinstance(x, Encoded):
        x = x.vectors
    if sp.issparse(x):
        raise ValueError(f"encoders[{name!r}] must give dense vectors; got {type(x).__name__}")
    vectors = np.asarray(x, np.float32)
    if vectors.ndim != 2 or len(vectors) != n:
        raise ValueError(
            f"encoders[{name!r}] must give one vector per input ({n}); got shape {vectors.shape}"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"encoders[{name!r}] must give finite vectors; got NaN or infinity")
    return vectors


def _check(inputs: Any, encoders: Any, mode: Any, chunk: Any, errors: Any) -> None:
    for name, value in (("inputs", inputs), ("encoders", encoders)):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be a mapping by modality; got {type(value).__name__}")
    if set(inputs) != set(encoders) or not inputs:
        raise ValueError(f"encoders must have the modalities {list(inputs)}; got {list(encoders)}")
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {list(get_args(Mode))}; got {mode!r}")
    if as_int(chunk, "chunk") < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}")
    if errors not in get_args(Errors):
        raise ValueError(f"errors must be 'raise' or 'skip'; got {errors!r}")
    for name, encoder in encoders.items():
        if not (hasattr(encoder, "encode") or callable(encoder)):
            raise TypeError(
                f"encoders[{name!r}] must have encode() or be a function; "
                f"got {type(encoder).__name__}"
            )
    first = next(iter(inputs))
    for name, items in inputs.items():
        if isinstance(items, (str, bytes)) or not hasattr(items, "__len__"):
            raise TypeError(f"inputs[{name!r}] must be a sequence; got {type(items).__name__}")
        if len(items) != len(inputs[first]):
            raise ValueError(
                f"inputs[{name!r}] must have {len(inputs[first])} items like inputs[{first!r}]; "
                f"got {len(items)}"
            )
