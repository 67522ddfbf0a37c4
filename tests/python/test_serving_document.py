from __future__ import annotations

import doctest
from pathlib import Path

import pytest


def test_the_examples_of_the_document_run():
    for library in ("sklearn", "PIL"):
        pytest.importorskip(library)
    document = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
    failures, tried = doctest.testfile(str(document), module_relative=False)
    assert tried >= 10 and failures == 0
