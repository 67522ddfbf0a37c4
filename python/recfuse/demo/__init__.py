"""The main job on real input: ``recfuse demo``."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["run"]


def run(out_dir: Path, *, offline: bool = False, num_threads: int = 0) -> int:
    """Recommend films to people, print the result, and write ``report.html``; 0 is success.

    Parameters
    ----------
    out_dir : Path
        Made where it does not exist.
    offline : bool, default=False
        Use the film credits inside the package, as where no package registry is in reach.
    num_threads : int, default=0
    """
    from recfuse.demo.data import DemoData, film_credits, movielens
    from recfuse.demo.pipeline import Stages, run_pipeline
    from recfuse.demo.report import as_html
    from recfuse.demo.text import as_text
    from recfuse.errors import DatasetError

    def load() -> DemoData:
        if offline:
            return film_credits()
        try:
            return movielens()
        except DatasetError as error:
            print(
                f"{error}\n\nSo this runs on the film credits inside the package: people who worked"
                " on films instead of people who rate them, and no text encoder.\n"
            )
            return film_credits()

    stages = Stages()
    with stages.stage("load and clean"):
        data = load()
    print(f"{data.title}\n{data.terms}\n")
    bars = sys.stderr.isatty()  # in a log they are noise
    result = run_pipeline(data, stages, num_threads=num_threads, show_progress=bars)
    print("\n" + as_text(result))
    out_dir.mkdir(parents=True, exist_ok=True)
    report = out_dir / "report.html"
    report.write_text(as_html(result), encoding="utf-8")
    print(f"\nThe same as plots: {report}")
    return 0
