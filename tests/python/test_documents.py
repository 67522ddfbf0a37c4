"""What pages say twice is said alike: the README in two languages, names, rules of fusion."""

from __future__ import annotations

import re
from pathlib import Path
from pydoc import locate

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse.fusion import suggest_fusion

ROOT = Path(__file__).parents[2]
README, CHINESE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))


def prose(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def test_both_readmes_have_the_same_commands_and_programs() -> None:
    blocks = [re.findall(r"```.*?```", text, re.DOTALL) for text in (README, CHINESE)]
    assert len(blocks[0]) >= 2
    assert blocks[0] == blocks[1]


def test_both_readmes_have_the_same_numbers() -> None:
    def numbers(text: str) -> list[str]:
        text = re.sub(r"\]\([^)]*\)", "]", prose(text))  # names of files are not numbers
        return sorted(re.findall(r"\d[\d.,]*\d|\d", text))

    assert len(numbers(README)) > 100
    assert numbers(README) == numbers(CHINESE)


def test_both_readmes_have_the_same_table() -> None:
    def rows(text: str) -> list[str]:
        table = text.split("<!-- speed -->\n")[1].split("<!-- /speed -->")[0].splitlines()
        return [line for line in table if line.startswith("|")][2:]

    assert len(rows(README)) > 10
    assert rows(README) == rows(CHINESE)


def test_both_readmes_show_the_same_way() -> None:
    def links(text: str) -> list[str]:
        found = re.findall(r"\]\(([^)]*)\)", text)
        return sorted(link for link in found if not link.startswith("README."))

    assert links(README) == links(CHINESE)
    assert "(README.zh-CN.md)" in README and "(README.md)" in CHINESE
    assert len(re.findall("^## ", README, re.M)) == len(re.findall("^## ", CHINESE, re.M))


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh-CN.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = prose((ROOT / page).read_text("utf-8"))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not re.match(r"\w+:", target):
            assert ((ROOT / page).parent / target).exists(), target


def test_names_of_the_glossary_are_there() -> None:
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    rows = re.findall(r"^\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    rows = [row for row in rows if row[0].strip() not in ("中文", "---")]
    terms = [row[0].strip() for row in rows]
    assert len(set(terms)) == len(terms) > 100
    dotted = [name for row in rows for name in re.findall(r"`(\w+(?:\.\w+)+|[A-Z]\w+)`", row[2])]
    assert len(dotted) > 80
    for name in dotted:
        if name.endswith(".py"):
            continue
        where = name if name.startswith("recfuse.") else f"recfuse.{name}"
        assert locate(where) is not None, name
    for path in re.findall(r"`(recipes/[^`]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_guide_names_every_rule_that_can_be_suggested() -> None:
    rng = np.random.default_rng(0)
    items = {"text": rng.normal(size=(30, 3)), "image": rng.normal(size=(30, 3))}
    queries = {name: rng.normal(size=(8, 3)) for name in items}
    relevant = sp.csr_array((queries["text"] @ items["text"].T > 1).astype(np.float32))
    rules = {option.name for option in suggest_fusion(queries, items, relevant, k=3).options}
    rules -= {"text alone", "image alone"}
    guide = (ROOT / "docs/choosing.md").read_text("utf-8")
    table = guide.split("## Fusion")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))
    assert len(rules) == 10
    assert rules <= named, rules - named
