"""The command line: arguments only; each command is a function elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfuse import __version__
from recfuse._development import FOLDERS, folder
from recfuse.errors import RecfuseError

if TYPE_CHECKING:
    from recfuse.interactions import Interactions

__all__ = ["main"]

_WRONG_REQUESTS = (
    RecfuseError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    ImportError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 a wrong request, in one line on standard error."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        return _show_folders(parser, options)
    try:
        return int(options.run(options) or 0)
    except BrokenPipeError:  # the reader, head for example, has enough
        sys.stderr.close()
        return 0
    except _WRONG_REQUESTS as error:
        # A KeyError shows its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"recfuse {options.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"recfuse {options.command}: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recfuse", description="Exact multimodal recommendation at kernel speed."
    )
    parser.add_argument("--version", action="version", version=f"recfuse {__version__}")
    for name, (_, purpose) in FOLDERS.items():
        parser.add_argument(
            f"--{name}-dir",
            dest="folders",
            action="append_const",
            const=name,
            help=f"the folder {purpose}",
        )
    commands = parser.add_subparsers(dest="command", metavar="command")
    for add in (
        _add_demo,
        _add_doctor,
        _add_bench,
        _add_fit,
        _add_recommend,
        _add_evaluate,
        _add_verify,
        _add_serve,
    ):
        add(commands)
    return parser


def _show_folders(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if not options.folders:
        parser.error("a command is required: see recfuse --help")
    try:
        for name in options.folders:
            print(folder(name))
    except FileNotFoundError as error:
        print(f"recfuse: {error}", file=sys.stderr)
        return 2
    return 0


Commands = Any  # argparse does not make the type of add_subparsers() public


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser("demo", help="recommend real films to real people, and explain")
    parser.add_argument(
        "--offline", action="store_true", help="use the film credits inside the package"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder (%(default)s)"
    )
    _add_threads(parser)

    def run(options: argparse.Namespace) -> int:
        from recfuse.demo import run as run_demo

        return run_demo(options.out, offline=options.offline, num_threads=options.threads)

    parser.set_defaults(run=run)


def _add_doctor(commands: Commands) -> None:
    parser = commands.add_parser("doctor", help="what runs here, and why CUDA is off")

    def run(options: argparse.Namespace) -> None:
        from recfuse.commands import report

        print(report())

    parser.set_defaults(run=run)


def _add_bench(commands: Commands) -> None:
    parser = commands.add_parser("bench", help="time the ops beside their peers")
    parser.add_argument("ops", nargs="*", metavar="op", help="fuse_topk, topk, ...; all by default")
    parser.add_argument("--list", action="store_true", help="show workloads and contenders")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--rounds", type=int, default=5, help="times per contender (%(default)s)")
    parser.add_argument("--out", default="bench-output", help="folder (%(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="time recfuse alone")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, or emulator: a rehearsal of cuda (%(default)s)"
    )
    _add_threads(parser)

    def run(options: argparse.Namespace) -> int:
        from recfuse.bench.run import list_cases, main_bench

        if options.list:
            print(list_cases(options.ops, options.device))
            return 0
        return main_bench(
            options.ops,
            quick=options.quick,
            threads=options.threads,
            rounds=options.rounds,
            out_dir=options.out,
            peers=not options.no_peers,
            device=options.device,
        )

    parser.set_defaults(run=run)


def _add_fit(commands: Commands) -> None:
    parser = commands.add_parser("fit", help="fit a model on a table of events; write a model file")
    _add_events(parser)
    parser.add_argument("--model", choices=_models(), default="als", help="(%(default)s)")
    _add_sizes(parser)
    parser.add_argument(
        "--vectors",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="item vectors of a modality, rows in the order of first appearance; for 'multimodal'",
    )
    parser.add_argument("--out", type=Path, default=Path("model.recfuse"), help="(%(default)s)")

    def run(options: argparse.Namespace) -> None:
        from recfuse import commands as do

        vectors = {}
        for pair in options.vectors:
            name, separator, path = pair.partition("=")
            if not separator:
                raise ValueError(f"--vectors must be NAME=FILE.npy; got {pair!r}")
            vectors[name] = Path(path)
        events = _read(options)
        fitted = do.fit(
            events,
            _new_model(options, options.model),
            options.out,
            vectors=vectors,
            show_progress=options.progress,
        )
        n_users, n_items = fitted.interactions_.shape
        print(f"{options.out}: {n_users} users, {n_items} items, {len(events)} events")

    parser.set_defaults(run=run)


def _add_recommend(commands: Commands) -> None:
    parser = commands.add_parser("recommend", help="lists of a model file, as CSV or JSON lines")
    parser.add_argument("model", type=Path, help="file written by 'recfuse fit'")
    parser.add_argument("users", nargs="*", help="ids of users; all by default")
    parser.add_argument("-k", type=int, default=10, help="length of a list (%(default)s)")
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="(%(default)s)")

    def run(options: argparse.Namespace) -> None:
        from recfuse.commands import recommend

        recommend(options.model, options.users or None, options.k, form=options.format)

    parser.set_defaults(run=run)


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="split events, fit models, and compare them")
    _add_events(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=_models(),
        default=["popularity", "item-neighbours", "als"],
        help="(popularity item-neighbours als)",
    )
    _add_sizes(parser)
    parser.add_argument(
        "--split",
        choices=("time", "user-time", "random"),
        help="(user-time where --time names a column, else random)",
    )
    parser.add_argument("--share", type=float, default=0.2, help="of the test (%(default)s)")
    parser.add_argument("-k", type=int, default=20, help="length of a list (%(default)s)")

    def run(options: argparse.Namespace) -> None:
        from recfuse.commands import evaluate

        split = options.split or ("user-time" if options.time else "random")
        print(
            evaluate(
                _read(options),
                {name: _new_model(options, name) for name in options.models},
                split=split,
                share=options.share,
                k=options.k,
                seed=options.seed,
                show_progress=options.progress,
            )
        )

    parser.set_defaults(run=run)


def _add_verify(commands: Commands) -> None:
    parser = commands.add_parser("verify", help="read a whole model file, and say if it is sound")
    parser.add_argument("files", nargs="+", type=Path, help="model files")

    def run(options: argparse.Namespace) -> None:
        from recfuse.commands import verify

        for path in options.files:
            print(verify(path))

    parser.set_defaults(run=run)


def _add_serve(commands: Commands) -> None:
    from recfuse.service.options import Options

    parser = commands.add_parser("serve", help="answer requests over HTTP from a model file")
    parser.add_argument("model", type=Path, help="file written by 'recfuse fit'")
    parser.add_argument("--host", default="127.0.0.1", help="(%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s)")
    parser.add_argument("--titles", type=Path, metavar="CSV", help="ids and titles of items")
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="of feedback; MODEL.journal by default"
    )
    parser.add_argument("--no-feedback", action="store_true", help="take none, write nothing")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="bearer token; or RECFUSE_TOKEN"
    )
    parser.add_argument("--log-requests", action="store_true", help="a line for every request")
    for name, text in (
        ("max_wait_ms", "a request waits for others, while others are asked"),
        ("max_batch", "requests of one search"),
        ("max_queue", "requests that may wait; more get 503"),
        ("max_body", "bytes of a request"),
        ("max_k", "items of a list"),
        ("max_ids", "items of a filter, a history or a feedback"),
        ("max_events", "items in all sessions"),
        ("max_connections", "open ones; more get 503"),
        ("request_timeout", "seconds to send a request, or to take a response"),
        ("shutdown_timeout", "seconds to answer what waits at the end"),
        ("watch", "seconds between looks for a new model file; 0: none"),
    ):
        default = getattr(Options, name)
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=type(default),
            default=default,
            help=f"{text} (%(default)s)",
        )
    parser.add_argument("--threads", type=int, default=0, help="of a search; 0: all CPUs")

    def run(options: argparse.Namespace) -> int:
        from recfuse.service import serve

        fields = {field.name for field in dataclasses.fields(Options)}
        given = {name: value for name, value in vars(options).items() if name in fields}
        token = os.environ.get("RECFUSE_TOKEN")
        if options.token_file is not None:
            token = options.token_file.read_text(encoding="utf-8").strip()
        return serve(Options(**given, feedback=not options.no_feedback, token=token))

    parser.set_defaults(run=run)


def _models() -> tuple[str, ...]:
    return ("als", "item-neighbours", "user-neighbours", "popularity", "multimodal")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=0, help="0: what this process may use")


def _add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("events", type=Path, help=".csv, .tsv or .parquet, one event a row")
    parser.add_argument("--user", default="user", help="column of users (%(default)s)")
    parser.add_argument("--item", default="item", help="column of items (%(default)s)")
    parser.add_argument("--value", help="column of strengths; 1 by default")
    parser.add_argument("--time", help="column of times")
    parser.add_argument("--at-least", type=float, metavar="X", help="keep events of this value")


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factors", type=int, default=64, help="of ALS (%(default)s)")
    parser.add_argument("--neighbours", type=int, default=50, help="per item or user (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--progress", action="store_true", help="show bars")
    _add_threads(parser)


def _read(options: argparse.Namespace) -> Interactions:
    from recfuse.commands import read_interactions

    return read_interactions(
        options.events,
        user=options.user,
        item=options.item,
        value=options.value,
        time=options.time,
        at_least=options.at_least,
    )


def _new_model(options: argparse.Namespace, name: str) -> object:
    from recfuse.commands import new_model

    return new_model(
        name,
        factors=options.factors,
        neighbours=options.neighbours,
        seed=options.seed,
        num_threads=options.threads,
    )


if __name__ == "__main__":
    sys.exit(main())
