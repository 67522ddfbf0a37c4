"""Texts to padded token arrays, by a tokenizer.json of the `tokenizers` library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import FormatError
from recfuse.serving._session import load_runtime

__all__ = ["Encoded", "Tokens"]

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Encoded(NamedTuple):
    """Token ids of all texts, one after the other, and how many each text has."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    lengths: NDArray[np.intp]


class Tokens:
    """A private copy of a tokenizer that truncates and leaves padding to us."""

    def __init__(
        self, tokenizer: Any, *, max_length: int | None = None, static_length: int | None = None
    ) -> None:
        self._tokenizer = _load(tokenizer)
        self.static_length = static_length
        padding = self._tokenizer.padding or {}
        self._pad_id = padding.get("pad_id", _pad_id(self._tokenizer))
        self._pad_type = padding.get("pad_type_id", 0)
        self._tokenizer.no_padding()
        own = (self._tokenizer.truncation or {}).get("max_length")
        limits = [n for n in (max_length or own, static_length) if n]
        if limits:
            self._tokenizer.enable_truncation(max_length=min(limits))

    def to_bytes(self) -> bytes:
        """Everything that decides the tokens."""
        return str(self._tokenizer.to_str()).encode()

    def to_file(self) -> bytes:
        """Return a ``tokenizer.json`` that makes the same tokens and padding."""
        whole = load_runtime("tokenizers").Tokenizer.from_str(self._tokenizer.to_str())
        whole.enable_padding(pad_id=self._pad_id, pad_type_id=self._pad_type)
        return str(whole.to_str()).encode()

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokenise; one text at a time, since the library's own threads do not survive a fork."""
        ids: list[int] = []
        types: list[int] = []
        lengths = np.zeros(len(texts), np.intp)
        for row, text in enumerate(texts):
            encoding = self._tokenizer.encode(text)
            ids += encoding.ids
            types += encoding.type_ids
            lengths[row] = len(encoding.ids)
        return Encoded(np.array(ids, np.int64), np.array(types, np.int64), lengths)

    def padded(
        self, encoded: Encoded, rows: NDArray[np.intp]
    ) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
        """Return the arrays of some texts by the names that models use, and their mask."""
        lengths = encoded.lengths[rows]
        width = self.static_length or max(int(lengths.max(initial=0)), 1)
        mask = np.arange(width) < lengths[:, None]
        starts = np.cumsum(encoded.lengths) - encoded.lengths
        where = (starts[rows][:, None] + np.arange(width))[mask]
        ids = np.full(mask.shape, self._pad_id, np.int64)
        types = np.full(mask.shape, self._pad_type, np.int64)
        ids[mask] = encoded.ids[where]
        types[mask] = encoded.types[where]
        return dict(zip(NAMES, (ids, mask.astype(np.int64), types), strict=True)), mask


def _load(tokenizer: Any) -> Any:
    library = load_runtime("tokenizers")
    if isinstance(tokenizer, library.Tokenizer):
        return library.Tokenizer.from_str(tokenizer.to_str())
    if isinstance(tokenizer, (bytes, bytearray, memoryview)):
        text = bytes(tokenizer)
    elif isinstance(tokenizer, (str, os.PathLike)):
        path = Path(tokenizer)
        if not path.is_file():
            raise FileNotFoundError(
                f"OnnxEncoder: tokenizer must be an existing file; got {str(path)!r}"
            )
        text = path.read_bytes()
    else:
        kind = type(tokenizer).__name__
        raise TypeError(
            f"OnnxEncoder: tokenizer must be a path, bytes or tokenizers.Tokenizer; got {kind}"
        )
    try:
        return library.Tokenizer.from_buffer(text)
    except Exception as error:  # the library raises Exception itself
        raise FormatError(
            f"OnnxEncoder: tokenizer must be a tokenizer.json; got {str(error)[:200]}"
        ) from error


def _pad_id(tokenizer: Any) -> int:
    known = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((token for token in known if token is not None), 0)
