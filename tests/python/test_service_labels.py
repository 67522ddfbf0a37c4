"""Ids of a running service: found by a part of them, wherever they lie."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from recfuse._id_table import IdTable
from recfuse.service import labels as module


@pytest.mark.parametrize("kind", ["rows", "integers", "strings", "labels"])
@pytest.mark.parametrize("titled", [False, True])
def test_every_id_is_found_by_a_part_of_it(kind, titled, monkeypatch):
    monkeypatch.setattr(module, "_TOGETHER", 7)  # texts of several ids lie in one another's reach
    ids = {
        "rows": range(40),
        "integers": np.arange(40) * 7 + 10**12,
        "strings": np.fromiter((f"Straße {i}\n茶" for i in range(40)), object, 40),
        "labels": np.fromiter((("shop", i) if i % 2 else f"Ä{i}" for i in range(40)), object, 40),
    }[kind]
    known = module.Labels(None if kind == "rows" else IdTable.of(ids, "ids"), 40)
    names = [known.label(row) for row in range(40)]
    titles = {str(name): f"Title {39 - i} É" for i, name in enumerate(names) if titled and i % 3}

    def by_hand(text, most):
        pairs = [(name, titles.get(str(name), str(name))) for name in names]
        searched = [
            (f"{title} {name}" if titled else str(name)).casefold() for name, title in pairs
        ]
        return [pair for pair, s in zip(pairs, searched, strict=True) if text.casefold() in s][
            :most
        ]

    texts = (
        "",
        "3",
        "39",
        "3 4",
        " ",
        "title 3",
        "STRASSE 1",
        "茶",
        "shop",
        "é",
        "ä1",
        "\n",
        "7\n",
        "\udcff",
    )
    for text in texts:
        for most in (1, 5, 100):
            assert known.matching(text, most, titles) == by_hand(text, most), (text, most)
