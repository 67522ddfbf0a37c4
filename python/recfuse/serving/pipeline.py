"""From requests to lists: encode, fuse, top-k."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recfuse import storage
from recfuse._inputs import as_int
from recfuse._modalities import weight_rows
from recfuse._named import named
from recfuse._retrieval import Retrieval
from recfuse.backend import resolve_backend
from recfuse.errors import FormatError
from recfuse.index import FusedIndex
from recfuse.persistence import NO_ESTIMATOR
from recfuse.serving._requests import EncodedRequests, as_encoder, encode_requests
from recfuse.serving._rules import known_ids, left_out, request_weights
from recfuse.serving._saved import KIND, read, write

__all__ = ["Pipeline", "Timings"]


@dataclass(frozen=True)
class Timings:
    """Seconds that the stages of one call took, by the wall clock.

    Attributes
    ----------
    encode : dict of str to float
        By modality; about 0 for vectors that were given.
    search : float
        Fusion and top-k, which are one pass.
    total : float
        All of the call: what is left of it is the checking of arguments.
    """

    encode: dict[str, float]
    search: float
    total: float


class Pipeline:
    r"""Encoders and an index as one object: requests in, lists of items out.

    A call is the same steps that one would write: every encoder gets the inputs of its modality,
    the vectors are the queries of `FusedIndex.topk`, and the result is the same bytes. What a
    request lacks is left out of its score.

    Several threads may use a pipeline at once, if its encoders allow that: those of recfuse do.

    Where index and encoder both run on CUDA, the vectors of a modality that every request of a call
    has go from one to the other without coming to the host; so do vectors that are given on a GPU.

    Parameters
    ----------
    index : FusedIndex or mapping modality -> array-like of shape (n_items, dim_m)
        What is searched, or the vectors of the items to make an index of.
    encoders : mapping modality -> encoder, optional
        What turns inputs into vectors of shape (n, dim_m): an object with ``encode`` or
        ``transform`` (`OnnxEncoder`, `features.ImageEncoder`, a fitted `features.TfidfEncoder` or
        transformer of scikit-learn), or a function. None, or no entry, where requests bring the
        vectors themselves.
    k : int, default=10
    weights : mapping modality -> float, optional
        1 for every modality by default.
    fusion, normalise, missing
        As in `FusedIndex.topk`.
    exclude : array-like of int, optional
        Items that no request gets.
    metric, present, device, num_threads
        Of the index that is made; not to be given with a `FusedIndex`, which has them.

    Attributes
    ----------
    index : FusedIndex
    modalities : list of str
    encoders : dict of str to encoder

    Raises
    ------
    TypeError, ValueError, IndexError
        If an argument does not suit the index, or is no encoder.

    Notes
    -----
    A request without the modalities :math:`M` is scored as an item without them is: by the others,
    at the same scale. With ``missing='renormalise'`` its weights are 0 for :math:`m \in M`, and
    for ``fusion='sum'`` the others are multiplied by :math:`\sum |w_m| / \sum_{m \notin M}
    |w_m|`; with 'zero' the weights stay and its similarities are 0. 'rrf' leaves the lists out.
    A request that has nothing with a weight gets nothing: ids of -1. That is also what
    `FusedIndex` does about items: a missing photo means the same on both sides.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.serving import Pipeline
    >>> def length(texts):
    ...     return [[len(text), 1.0] for text in texts]
    >>> items = {"text": length(["a", "four", "eleven char"]), "place": np.eye(3)}
    >>> pipeline = Pipeline(items, {"text": length}, k=2, metric="dot")
    >>> ids, scores = pipeline.topk({"text": ["abc", None], "place": [[0, 9, 0], [0, 0, 2.0]]})
    >>> ids.tolist(), scores.tolist()
    ([[2, 1], [2, 0]], [[34.0, 22.0], [4.0, 0.0]])
    """

    @named("Pipeline")
    def __init__(
        self,
        index: FusedIndex | Mapping[str, ArrayLike],
        encoders: Mapping[str, Any] | None = None,
        *,
        k: int = 10,
        weights: Mapping[str, float] | None = None,
        fusion: str = "sum",
        normalise: str | None = None,
        missing: str = "renormalise",
        exclude: ArrayLike | None = None,
        metric: str | None = None,
        present: Mapping[str, ArrayLike] | None = None,
        device: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        options: dict[str, Any] = {
            name: value
            for name, value in (
                ("metric", metric),
                ("present", present),
                ("device", device),
                ("num_threads", num_threads),
            )
            if value is not None
        }
        if isinstance(index, FusedIndex):
            if options:
                raise ValueError(
                    f"{next(iter(options))} must be left to the index that is given; "
                    f"got {next(iter(options.values()))!r}"
                )
            self._index = index
        else:
            self._index = FusedIndex(index, **options)
        self._encoders = _checked_encoders(encoders, self.modalities)
        self._defaults: dict[str, Any] = {
            "k": _checked_k(k),
            "weights": None if weights is None else dict(weights),
            "fusion": fusion,
            "normalise": normalise,
            "missing": missing,
        }
        weight_rows(self._defaults["weights"], self.modalities, 1)  # for its checks
        self._exclude = None if exclude is None else known_ids(exclude, self._index.n_items)

    @classmethod
    @named("Pipeline")
    def from_inputs(
        cls,
        items: Mapping[str, Any],
        encoders: Mapping[str, Any],
        *,
        metric: str = "cosine",
        device: str = "auto",
        num_threads: int = 0,
        **defaults: Any,
    ) -> Pipeline:
        """Encode items by the encoders that requests will get, and index them.

        Parameters
        ----------
        items : mapping modality -> inputs
            One input per item, or None for an item that has no such modality.
        encoders : mapping modality -> encoder
        metric, device, num_threads
            As in `FusedIndex`.
        **defaults
            ``k``, ``weights``, ``fusion``, ``normalise``, ``missing``, ``exclude`` of `Pipeline`.

        Returns
        -------
        Pipeline

        Examples
        --------
        >>> from recfuse.serving import Pipeline
        >>> def letters(texts):
        ...     return [[text.count(x) for x in "abc"] for text in texts]
        >>> pipeline = Pipeline.from_inputs({"text": ["abba", "cab", None]}, {"text": letters})
        >>> pipeline.topk({"text": ["ab"]}, k=3)[0]
        array([[ 0,  1, -1]], dtype=int32)
        """
        names = list(items) if isinstance(items, Mapping) else []
        where = resolve_backend(device).name
        known = _checked_encoders(encoders, names)
        made = encode_requests(items, names, known, {}, None, where)
        index = FusedIndex(
            made.vectors,
            metric=metric,
            present=None if all(x.all() for x in made.present.values()) else made.present,
            device=device,
            num_threads=num_threads,
        )
        return cls(index, encoders, **defaults)

    @property
    def index(self) -> FusedIndex:
        return self._index

    @property
    def modalities(self) -> list[str]:
        return self._index.modalities

    @property
    def encoders(self) -> dict[str, Any]:
        return dict(self._encoders)

    def __repr__(self) -> str:
        steps = [
            f"{name}: {type(self._encoders[name]).__name__ if name in self._encoders else None}"
            for name in self.modalities
        ]
        return f"Pipeline({', '.join(steps)} -> {self._index.n_items} items)"

    @named("encode")
    def encode(
        self, inputs: Mapping[str, Any], *, present: Mapping[str, ArrayLike] | None = None
    ) -> EncodedRequests:
        """Do the first step alone.

        Parameters
        ----------
        inputs, present
            As in `topk`.

        Returns
        -------
        EncodedRequests
            ``vectors`` and ``present`` by modality, and the ``seconds`` that each took.
        """
        return encode_requests(
            inputs,
            self.modalities,
            self._encoders,
            self._index.dims,
            present,
            self._index.device,
        )

    @named("topk")
    def topk(
        self,
        inputs: Mapping[str, Any],
        k: int | None = None,
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        exclude: Any = None,
        allow: Any = None,
        present: Mapping[str, ArrayLike] | None = None,
        contributions: bool = False,
        return_timings: bool = False,
    ) -> tuple[Any, ...]:
        """Find the best items for every request.

        Parameters
        ----------
        inputs : mapping modality -> inputs, one per request
            What the encoder of the modality takes; rows of vectors where there is none. A request
            without a modality has None in its place; a modality that no request has may be left
            out, or None.
        k : int, optional
            Length of the lists; that of the pipeline by default.
        weights : mapping modality -> float or array-like of shape (n,), optional
            In the place of the pipeline's.
        exclude : array-like of int, or sparse of shape (n, n_items), optional
            Items that no request gets, or the stored entries of each row; beside the pipeline's.
        allow : array-like of int, or sparse of shape (n, n_items), optional
            As in `FusedIndex.topk`.
        present : mapping modality -> array-like of bool of shape (n,), optional
            Which requests have a modality, for inputs that cannot hold None, such as an array.
        contributions : bool, default=False
            Return the terms of every score, too.
        return_timings : bool, default=False
            Return what the stages took, too.

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n, k), float32
            -inf for padding.
        parts : ndarray of shape (n, k, n_modalities), float64
            With `contributions`: as `FusedIndex.topk` returns them.
        timings : Timings
            With `return_timings`: the last element. Of this call alone, so any number of threads
            may ask for it.

        Raises
        ------
        TypeError, ValueError, IndexError
            If inputs do not suit the modalities, numbers of rows differ, or an encoder does not
            give a vector per input; and what encoders and `FusedIndex.topk` raise.
        """
        start = time.perf_counter()
        k = self._defaults["k"] if k is None else _checked_k(k)
        encoded = self.encode(inputs, present=present)
        n_rows = len(next(iter(encoded.present.values())))
        given = self._defaults["weights"] if weights is None else weights
        rule = {name: self._defaults[name] for name in ("fusion", "missing")}
        of_requests, unserved = request_weights(given, encoded.present, n_rows, **rule)
        before = time.perf_counter()
        result = self._index.topk(
            encoded.vectors,
            k,
            weights=of_requests,
            exclude=left_out(self._exclude, exclude, (n_rows, self._index.n_items)),
            allow=allow,
            contributions=contributions,
            normalise=self._defaults["normalise"],
            **rule,
        )
        result = tuple(map(np.asarray, result))  # those of vectors on a GPU are there, too
        if unserved.any():
            for array, padding in zip(result, (-1, -np.inf, 0.0), strict=False):
                array[unserved] = padding
        end = time.perf_counter()
        if return_timings:
            return (*result, Timings(encoded.seconds, end - before, end - start))
        return result

    @named("warm_up")
    def warm_up(self, inputs: Mapping[str, Any], *, runs: int = 3, **options: Any) -> list[Timings]:
        """Answer typical requests, so that the first real ones find everything in its place.

        The first runs of a network allocate and choose its kernels, for every size of batch anew;
        an index that is asked again makes its rounded copy.

        Parameters
        ----------
        inputs : mapping modality -> inputs
            As in `topk`, as many as requests will come together.
        runs : int, default=3
        **options
            Of `topk`.

        Returns
        -------
        list of Timings
            What each run took.
        """
        if as_int(runs, "runs") < 1:
            raise ValueError(f"runs must be at least 1; got {runs}")
        options["return_timings"] = True
        return [self.topk(inputs, **options)[-1] for _ in range(runs)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write items, options and encoders to one file, in one step; `load` reads it.

        `OnnxEncoder` and the estimators of recfuse are in the file, as data. Functions and encoders
        of other libraries are not: `load` takes them. Device, threads and caches are no part of it.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced only when the new one is complete.

        Raises
        ------
        ValueError
            If the model of an encoder has its weights in a second file.
        """
        present = {
            name: self._index._presence_of(name)
            for name in self.modalities
            if self._index._present is not None
        }
        write(
            path,
            {
                "items": {name: np.asarray(x) for name, x in self._index._items.items()},
                "present": present or None,
                "metric": self._index._metric,
                "encoders": self._encoders,
                "options": {**self._defaults, "exclude": self._exclude},
            },
            self._retrieval() if self._searches_plainly else None,
        )

    @property
    def _searches_plainly(self) -> bool:
        """Whether a `Retriever` can do this search, which is one sum without exceptions."""
        plain = {"fusion": "sum", "normalise": None}
        return self._exclude is None and all(self._defaults[x] == y for x, y in plain.items())

    def _retrieval(self) -> Retrieval:
        """Return the search behind the encoders; ValueError if it is none of a `Retriever`."""
        if not self._searches_plainly:
            raise ValueError(
                "model must fuse by 'sum', without normalise and exclude; got "
                f"{self._defaults['fusion']!r}, {self._defaults['normalise']!r}, {self._exclude}"
            )
        weights = self._defaults["weights"] or dict.fromkeys(self.modalities, 1.0)
        return replace(
            self._index._retrieval(),
            weights=tuple(float(weights[name]) for name in self.modalities),
            missing=self._defaults["missing"],
        )

    @classmethod
    @named("load")
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        encoders: Mapping[str, Any] | None = None,
        device: str = "auto",
        num_threads: int = 0,
    ) -> Pipeline:
        """Read a pipeline that `save` wrote; its items stay memory-mapped.

        Parameters
        ----------
        path : str or path-like
        encoders : mapping modality -> encoder, optional
            Those that are not in the file; others take the place of those that are.
        device, num_threads
            Of the index and of `OnnxEncoder`.

        Returns
        -------
        Pipeline
            That answers with the same bytes, on the same device.

        Raises
        ------
        FormatError
            If the file is damaged, is newer than this library, or is no pipeline.
        ValueError
            If an encoder is neither in the file nor in `encoders`.
        """
        file = storage.open_file(path, kind=KIND)
        return cls._of_file(file, os.fspath(path), encoders, device, num_threads)

    @classmethod
    def _of_file(
        cls,
        file: storage.StoredFile,
        path: str,
        encoders: Mapping[str, Any] | None = None,
        device: str = "auto",
        num_threads: int = 0,
    ) -> Pipeline:
        parts = read(file, path, encoders, device, num_threads)
        _checked_encoders(encoders, list(parts["items"]))  # those of the caller: no FormatError
        try:
            index = FusedIndex(
                parts["items"],
                metric=parts["metric"],
                present=parts["present"],
                device=device,
                num_threads=num_threads,
            )
            return cls(index, parts["encoders"], **parts["options"])
        except NO_ESTIMATOR as error:
            if isinstance(error, MemoryError):  # of the device, say
                raise
            raise FormatError(f"load: {path!r} must describe a pipeline; {error}") from error


def _checked_k(k: Any) -> int:
    if as_int(k, "k") < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    return int(k)


def _checked_encoders(encoders: Any, modalities: list[str]) -> dict[str, Any]:
    """Return the encoders that are not None."""
    if encoders is None:
        return {}
    if not isinstance(encoders, Mapping):
        raise TypeError(
            f"encoders must be a mapping modality -> encoder; got {type(encoders).__name__}"
        )
    unknown = [name for name in encoders if name not in modalities]
    if unknown:
        raise ValueError(f"encoders must have modalities of {modalities}; got {unknown}")
    for name, encoder in encoders.items():
        as_encoder(encoder, name)
    return {name: encoder for name, encoder in encoders.items() if encoder is not None}
