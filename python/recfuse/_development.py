"""Where a wheel keeps what C++ and C programs build against."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDERS", "folder"]

FOLDERS = {
    "cmake": ("lib/cmake/recfuse", "for find_package: -Drecfuse_DIR=$(recfuse --cmake-dir)"),
    "pkgconfig": ("lib/pkgconfig", "for pkg-config: PKG_CONFIG_PATH=$(recfuse --pkgconfig-dir)"),
    "include": ("include", "of the headers"),
    "lib": ("lib", "of the libraries"),
}


def folder(name: str) -> Path:
    """Return where the CMake package, the pkg-config files, the headers or the libraries are.

    Parameters
    ----------
    name : {'cmake', 'pkgconfig', 'include', 'lib'}

    Raises
    ------
    FileNotFoundError
        If recfuse was not installed from a wheel.
    """
    path = Path(__file__).parent / FOLDERS[name][0]
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is not there: `pip install` brings it, running from a source tree does not"
        )
    return path
