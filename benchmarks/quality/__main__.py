"""Every number of docs/quality.md: ``python benchmarks/quality gowalla`` (or --help).

Without --tune a run takes the parameters that the results in the repository name, fits on all of
training and looks at the test: minutes. With --tune it looks for them first, on the validation
part alone; --seconds ends that in time, and the next run goes on from the notes.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import page
from search import Notes, OutOfTime

import recfuse

RESULTS = Path(__file__).parents[1] / "results"
DATA_SETS = {
    "gowalla": "gowalla",
    "movielens-small": "movielens",
    "movielens-100k": "movielens",
    "lastfm": "lastfm",
}
_PEERS = ("numpy", "scipy", "implicit", "irspack", "cornac")


def main(arguments: list[str]) -> int:
    """Run one data set, or write the page."""
    parser = argparse.ArgumentParser(prog="quality", description=__doc__)
    parser.add_argument("what", choices=[*DATA_SETS, "page"])
    parser.add_argument("--tune", action="store_true", help="look for parameters first")
    parser.add_argument("--notes", type=Path, help="where trials are noted (default: by data set)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop tuning then")
    parser.add_argument("--out", type=Path, help="the results (default: benchmarks/results)")
    parser.add_argument(
        "--partial", action="store_true", help="when time is over, write what is tested"
    )
    parser.add_argument(
        "--order", type=Path, help="gowalla: the published train.txt, users' items by time"
    )
    parser.add_argument(
        "--again", action="append", default=[], help="gowalla: tune this one, others as published"
    )
    given = parser.parse_args(arguments)
    if given.what == "page":
        page.write(RESULTS)
        return 0
    out = given.out or RESULTS / f"quality-{given.what}.json"
    published = RESULTS / f"quality-{given.what}.json"
    notes = Notes(given.notes or Path(f"quality-{given.what}.notes.jsonl"), given.seconds)
    tuned = None
    if not given.tune:
        if not published.exists():
            parser.error(f"no parameters in {published}: run with --tune")
        tuned = json.loads(published.read_text(encoding="utf-8"))["tuned"]
    folder = Path(os.environ.get("RECFUSE_DATA", RESULTS.parents[2] / "shared" / "data"))
    data_set = importlib.import_module(DATA_SETS[given.what])
    options: dict[str, Any] = {"partial": given.partial} if given.what != "lastfm" else {}
    if given.what == "gowalla":
        if (given.tune or given.again) and given.order is None:
            parser.error("gowalla --tune needs --order: validation is what comes last")
        options |= {"order": given.order, "again": given.again}
    if DATA_SETS[given.what] == "movielens":
        options["name"] = given.what
    try:
        found = data_set.run(folder, notes, tuned, **options)
    except OutOfTime:
        print(f"out of time; the same command goes on from {notes.path}")
        return 3
    versions = {name: importlib.metadata.version(name) for name in _PEERS}
    document = {
        "data": given.what,
        "created": datetime.date.today().isoformat(),
        "versions": {"recfuse": recfuse.__version__, **versions},
        **found,
    }
    text = json.dumps(page.rounded(document), indent=1, ensure_ascii=False) + "\n"
    out.write_text(text, encoding="utf-8")
    print(page.table(json.loads(text)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
