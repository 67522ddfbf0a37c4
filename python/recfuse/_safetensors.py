"""The safetensors layout: a JSON header that says where each array lies, and digests of all of it.

Format 1 has one digest of all arrays, format 2 one of each, so that some can be checked alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import FormatError

__all__ = [
    "ALIGNMENT",
    "DTYPE_NAMES",
    "MAX_DIMENSIONS",
    "MAX_HEADER",
    "NO_DIGEST",
    "build_header",
    "check_header",
    "check_payload",
    "is_digest",
    "is_gap",
    "layout",
    "parse_json",
    "view_arrays",
]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector load
MAX_HEADER = 16 << 20  # bytes; parsed JSON takes many times its size, so a file cannot ask for more
MAX_DIMENSIONS = 32
MAX_DIGITS = 1000  # of an integer; more take a quadratic time to read

DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
DTYPE_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}

GAP = "#"  # begins the name of the zeros between two arrays
DIGEST_KEY = b'"recfuse.header_sha256":"'
NO_DIGEST = "0" * 64

Array = NDArray[Any]


def layout(tensors: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Return the header's entries in the order of the file; a gap is an entry of its own."""
    entries: dict[str, dict[str, Any]] = {}
    position = 0
    for name, array in tensors.items():
        gap = -position % ALIGNMENT
        if gap:
            entries[f"{GAP}{len(entries)}"] = _entry("U8", [gap], position, gap)
        position += gap
        dtype = DTYPE_NAMES[array.dtype]
        entries[name] = _entry(dtype, list(array.shape), position, array.nbytes)
        position += array.nbytes
    return entries


def _entry(dtype: str, shape: list[int], begin: int, n_bytes: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + n_bytes]}


def build_header(facts: Mapping[str, str], entries: Mapping[str, Any]) -> bytes:
    text = json.dumps({"__metadata__": facts, **entries}, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"write: names and metadata must take at most {MAX_HEADER} bytes; got {len(text)}"
        )
    return len(text).to_bytes(8, "little") + text


def parse_json(text: bytes | str) -> dict[str, Any]:
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        parsed = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_int=_integer,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError("must have a JSON header; got a damaged one") from error
    if not isinstance(parsed, dict):
        raise FormatError(f"must have a JSON object as header; got {type(parsed).__name__}")
    return parsed


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name appears twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def is_digest(value: Any) -> bool:
    """Whether this is a SHA-256 as the files have it."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_gap(name: str) -> bool:
    return name.startswith(GAP)


def check_header(header: bytes, facts: dict[str, Any]) -> None:
    digest = facts.get("recfuse.header_sha256")
    if not isinstance(digest, str) or not is_digest(digest):
        raise FormatError("must have a header checksum; got none")
    written = DIGEST_KEY + digest.encode()
    blank = header.replace(written, DIGEST_KEY + NO_DIGEST.encode())
    if header.count(written) != 1 or hashlib.sha256(blank).hexdigest() != digest:
        raise FormatError("must have the header that was written; got another checksum")


def view_arrays(header: dict[str, Any], payload: NDArray[np.uint8]) -> dict[str, Array]:
    """Return the arrays as views of the payload, which they must cover without gap or overlap."""
    views: dict[str, Array] = {}
    position = 0
    for name, entry in header.items():
        try:
            dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
            begin, end = entry["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"must describe each array; got {entry!r:.99} for {name!r}"
            ) from error
        # Python integers do not overflow: a shape of 2**63 fails here and allocates nothing.
        fits = whole and len(shape) <= MAX_DIMENSIONS
        if not fits or end - begin != math.prod(shape) * dtype.itemsize or end > len(payload):
            raise FormatError(f"must have arrays that fit the file; got {entry!r:.99} for {name!r}")
        if begin != position or (begin % ALIGNMENT and not is_gap(name)):
            raise FormatError(f"must have arrays in order; got offset {begin} for {name!r}")
        position = end
        if not is_gap(name):
            views[name] = _view(payload[begin:end], dtype, shape, name)
        elif end - begin >= ALIGNMENT or payload[begin:end].any():
            raise FormatError(f"must have zeros between arrays; got others in {name!r}")
    if position != len(payload):
        raise FormatError(f"must end after {position} bytes of arrays; got {len(payload)}")
    return views


def _view(data: NDArray[np.uint8], dtype: np.dtype[Any], shape: list[int], name: str) -> Array:
    try:
        return data.view(dtype).reshape(shape)
    except (ValueError, OverflowError) as error:  # an empty array with a dimension beyond 2**63
        raise FormatError(f"must have possible shapes; got {shape!r:.99} for {name!r}") from error


def check_payload(
    facts: Mapping[str, Any], views: Mapping[str, Array], payload: NDArray[np.uint8]
) -> None:
    """Compare the digests of the arrays, whichever the format has."""
    if facts["recfuse.format"] == "1":
        if hashlib.sha256(payload.data).hexdigest() != facts.get("recfuse.sha256"):
            raise FormatError("must have the arrays that were written; got another checksum")
        return
    for name, digest in _digests(facts, views).items():
        data = views[name].reshape(-1).view(np.uint8).data
        if hashlib.sha256(data).hexdigest() != digest:
            raise FormatError(
                f"must have the arrays that were written; got another checksum of {name!r}"
            )


def _digests(facts: Mapping[str, Any], views: Mapping[str, Array]) -> dict[str, Any]:
    digests = parse_json(str(facts.get("recfuse.checksums")))
    if set(digests) != set(views) or not all(map(is_digest, digests.values())):
        raise FormatError("must have one checksum per array; got others")
    return digests
