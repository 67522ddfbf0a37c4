"""docs/articles.md: every statement has its row, and what a row names is there."""

from __future__ import annotations

import re
from pathlib import Path
from pydoc import locate

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/articles.md").read_text("utf-8")
ROWS = re.findall(r"^\| (S\d-\d+) \|(.*)\|(.*)\|(.*)\|$", DOCUMENT, re.MULTILINE)
STATEMENTS = {"S0": 26, "S1": 19, "S2": 20, "S3": 31, "S4": 18}
# Methods and arguments of what the row names, too.
OF_OTHERS = {"predict", "recommend", "item_values", "allow", "train_popularity"}
WITHOUT_TEST = {"S3-19", "S3-20", "S3-21", "S3-22", "S3-23", "S3-31", "S4-14", "S4-16"}


def test_no_statement_is_left_out() -> None:
    expected = [f"{article}-{i + 1}" for article, n in STATEMENTS.items() for i in range(n)]
    assert [row[0] for row in ROWS] == expected


@pytest.mark.parametrize(("row", "here", "tests"), [(row[0], row[2], row[3]) for row in ROWS])
def test_what_a_row_names_is_there(row: str, here: str, tests: str) -> None:
    assert here.strip()
    for name in re.findall(r"`([^`]+)`", here):
        if name.startswith(("examples/", "recipes/")):
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"(\w+\.)?[A-Za-z]\w*(\.\w+)?", name) and name not in OF_OTHERS:
            assert locate(f"recfuse.{name}") is not None, name
    files = [ROOT / "tests/python" / name for name in re.findall(r"`([^`]+)`", tests)]
    for file in files:
        assert file.exists(), file
    tested = "".join(file.read_text("utf-8") for file in files)
    for name in re.findall(r"`((?:\w+\.)*[A-Za-z]\w*)`", here):
        assert not files or name.split(".")[-1] in tested, f"{name} is in none of its tests"
    if not tests.strip():
        assert row in WITHOUT_TEST
