"""Write the first inputs of the fuzzers: the golden files, as they are and as headers.

    python tests/fuzz/make_corpus.py

What the fuzzers add is kept beside them, if it is small; see README.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "data" / "model_files"
TARGET = HERE / "corpus"


def as_header(file: bytes, version: str) -> bytes:
    """Return a golden file as header, zero byte and arrays; format 1 lets arrays have any name."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    facts = header["__metadata__"]
    if version == "1":
        facts["recfuse.format"] = "1"
        facts["recfuse.sha256"] = "0" * 64
        facts.pop("recfuse.checksums", None)
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"\1" + text + b"\0" + file[8 + length :]


def main() -> None:
    """Write every input under the name of its SHA-1, as libFuzzer does."""
    TARGET.mkdir(exist_ok=True)
    for path in sorted(GOLDEN.glob("v*/*.recfuse")):
        file = path.read_bytes()
        inputs = {b"\0" + file, as_header(file, "1")}
        if b'"recfuse.format":"2"' in file:
            inputs.add(as_header(file, "2"))
        for data in inputs:
            (TARGET / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
