"""A hostile file never crashes Python: it is a FormatError, or it loads. See README.md.

The inputs are those of ``fuzz_model_file.cpp``: a file as it is, or a header of which length,
padding and checksum are made right.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["recfuse"]):
        import recfuse.features
        import recfuse.fusion
        import recfuse.preprocess
        import recfuse.serving

import recfuse
from recfuse import storage
from recfuse.errors import FormatError
from recfuse.serving import Retriever

KEY = b'"recfuse.header_sha256":"'
# What a request may raise of a model whose arrays are none: an answer, in words.
REFUSALS = (
    FormatError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)

# Data as they come, for the golden pipelines.
VISIT = {"who": ["zoe", "ann"], "what": [9, 7], "did": ["cart", "view"], "price": [None, 4.0]}
CONTENT = {
    "text": ["tea", None],
    "price": [[30.0], [1.0]],
    "about": {"genre": ["tea", "pot"], "price": [3.0, 4.0]},
}


def with_right_header(data: bytes) -> bytes:
    """Return the file of which these are the header and, behind a zero byte, the arrays."""
    header, _, payload = data.partition(b"\0")
    header += b" " * (-(8 + len(header)) % 64)
    file = len(header).to_bytes(8, "little") + header
    at = file.find(KEY) + len(KEY)
    if at >= len(KEY) and at + 64 <= len(file):
        blank = file[:at] + b"0" * 64 + file[at + 64 :]
        file = file[:at] + hashlib.sha256(blank).hexdigest().encode() + file[at + 64 :]
    return file + payload


def run_one(data: bytes, path: Path) -> None:
    """Load one input in every way that there is, and ask what loads."""
    if not data:
        return
    raw = data[0] % 2 == 0
    path.write_bytes(data[1:] if raw else with_right_header(data[1:]))
    for limit in (8 << 20, 0):  # as a small file, and as a large one, which is read when asked
        storage.CHECKED_BYTES = limit
        try:
            storage.read(path, verify=raw)
            model = recfuse.load(path, verify=raw)
        except FormatError:
            continue
        except ValueError as error:
            assert "encoders must have those that no file can hold" in str(error)
            continue
        ask(lambda model=model: model.recommend(np.arange(2), 3))
        ask(lambda model=model: model.similar_items([0], 2))
        ask(lambda model=model: repr(vars(model)))
        ask(lambda model=model: model.recommend_new_users(VISIT, 3))
        ask(lambda model=model: model.recommend_new_items(["ann"], CONTENT, 3))
        ask(lambda model=model: model.topk({"about": CONTENT["about"]}, 3))
    try:
        retriever = Retriever.load(path, verify=raw)
    except (FormatError, TypeError, ValueError):  # the latter: a model without a dense search
        return
    ask(retriever._parts.check)
    users = range(min(retriever.n_users or 0, 3))
    table = retriever._parts.user_ids
    ask(lambda: retriever.recommend(list(users) if table is None else labels(table, users), 3))
    items = np.arange(min(retriever.n_items, 3))
    ask(lambda: retriever.similar(list(retriever.item_labels(items)), 2))
    ask(lambda: retriever.search({n: np.ones(d) for n, d in retriever.dims.items()}, 2))


def labels(table: Any, users: range) -> list[Any]:
    return list(table.labels(np.array(users)))


def ask(request: Any) -> None:
    """Make a request of a model that is what a file says; it may be refused."""
    with contextlib.suppress(*REFUSALS):
        request()


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)) / "model"
    np.seterr(all="ignore")  # numbers of a hostile file overflow; that is no harm
    atheris.Setup(sys.argv, lambda data: run_one(data, path))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
