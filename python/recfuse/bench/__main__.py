"""``python -m recfuse.bench``."""

from __future__ import annotations

import argparse
import sys

from recfuse.bench.cases import OPS
from recfuse.bench.run import list_cases, main_bench


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m recfuse.bench", description="recfuse against its peers, on this machine"
    )
    parser.add_argument("ops", nargs="*", metavar="op", help=f"{', '.join(OPS)}; all by default")
    parser.add_argument("--list", action="store_true", help="show workloads and contenders")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--threads", type=int, default=0, help="for every contender")
    parser.add_argument("--rounds", type=int, default=5, help="times per contender (5)")
    parser.add_argument("--out", default="bench-output", help="folder (bench-output)")
    parser.add_argument("--no-peers", action="store_true", help="time recfuse alone")
    options = parser.parse_args(arguments)
    unknown = [op for op in options.ops if op not in OPS]
    if unknown:
        parser.error(f"no such op: {', '.join(unknown)} (choose from {', '.join(OPS)})")
    if options.list:
        print(list_cases(options.ops))
        return 0
    return main_bench(
        options.ops,
        quick=options.quick,
        threads=options.threads,
        rounds=options.rounds,
        out_dir=options.out,
        peers=not options.no_peers,
    )


if __name__ == "__main__":
    sys.exit(main())
