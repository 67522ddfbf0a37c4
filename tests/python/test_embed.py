"""The programs of examples/embed: built as their README says, each prints what Python prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recfuse import _development

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "embed"
BUILD = ROOT / "build" / "cpp"
# What the README calls it -> what has to be there.
NEEDS = {
    "C and C++ with CMake": ("cmake", "ninja", "c++", "cc"),
    "C with pkg-config": ("cc", "pkg-config"),
    "C++ with pkg-config": ("c++", "pkg-config"),
    "Rust": ("cargo", "pkg-config", "cc"),
    "Go": ("go", "pkg-config", "cc"),
}


def blocks() -> dict[str, list[str]]:
    """Return the lines of every block of the README, by the line of text before it."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^([^\n]+):\n\n```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return {title: commands.splitlines() for title, commands in found}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the libraries: of the wheel, or of what was built in this tree."""
    try:
        return _development.folder("lib")
    except FileNotFoundError as error:
        if not (BUILD / "cpp" / "librecfuse_c.so").exists() or not shutil.which("cmake"):
            pytest.skip(f"{error}; nor is the C library built: make build-cpp")
    prefix = tmp_path_factory.mktemp("prefix")
    install = ["cmake", "--install", BUILD, "--prefix", prefix, "--component", "devel"]
    subprocess.run(install, check=True, capture_output=True)
    return next(prefix.rglob("librecfuse_c.so")).parent


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    return os.environ | {
        "PKG_CONFIG_PATH": str(installed / "pkgconfig"),
        "recfuse_DIR": str(installed / "cmake" / "recfuse"),
        "CMAKE_GENERATOR": "Ninja",
    }


def program(name: str) -> Any:
    """Return a program of the folder in Python, as a module."""
    spec = importlib.util.spec_from_file_location(f"embed_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the example with the model that Python writes."""
    copy = tmp_path_factory.mktemp("embed") / "embed"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("target", "build", "recommend_*"))
    program("make_model").main(str(copy / "model.recfuse"))
    return copy


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, bytes]:
    """Return what Python prints for three people."""
    said = {}
    for user in ("ann", "王芳", "guest 40"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            program("recommend").main(str(folder / "model.recfuse"), user)
        assert out.getvalue().count("\n") == 16
        said[user] = out.getvalue().encode()
    return said


def test_the_readme_has_every_program():
    assert [title.split(",")[0] for title in blocks()] == list(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_a_program_prints_what_python_prints(name, folder, environment, expected):
    missing = [tool for tool in NEEDS[name] if not shutil.which(tool)]
    if missing:
        pytest.skip(f"no {', '.join(missing)}")

    def run(command: Any) -> subprocess.CompletedProcess[bytes]:
        shell = isinstance(command, str)
        return subprocess.run(
            command, shell=shell, cwd=folder, env=environment, capture_output=True
        )

    lines = next(lines for title, lines in blocks().items() if title.split(",")[0] == name)
    asking = [line for line in lines if line.endswith(" model.recfuse ann")]
    assert asking
    for line in lines:
        if line not in asking:
            built = run(line)
            assert built.returncode == 0, (built.stdout + built.stderr).decode()
    for line in asking:
        asked = [str(folder / line.split()[0]), "model.recfuse"]
        for user, printed in expected.items():
            done = run([*asked, user])
            assert (done.returncode, done.stdout) == (0, printed), done.stderr.decode()
        refused = run([*asked, "nobody"])
        assert refused.returncode == 1 and b"nobody" in refused.stderr
