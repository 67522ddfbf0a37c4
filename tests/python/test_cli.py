"""Every command of the command line, through `main`."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest

import recfuse
from recfuse import _development, storage
from recfuse.cli import main


@pytest.fixture
def events(tmp_path, rng):
    """A table of 400 ratings with ids that are words, and one of times."""
    path = tmp_path / "événements.csv"
    users, items = rng.integers(0, 20, 400), rng.integers(0, 30, 400)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "what", "stars", "when"])
        for i, (u, j) in enumerate(zip(users, items, strict=True)):
            writer.writerow([f"用户{u}", f"film {j}", int(rng.integers(1, 6)), 1_000 + i])
    return path


def columns(*more: str) -> list[str]:
    return ["--user", "who", "--item", "what", *more]


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"recfuse {recfuse.__version__}" in out
    assert "CUDA:" in out and "threads:" in out


def test_fit_and_recommend(events, tmp_path, capsys):
    model = tmp_path / "model.recfuse"
    arguments = columns(
        "--value", "stars", "--at-least", "3", "--factors", "4", "--out", str(model)
    )
    assert main(["fit", str(events), *arguments]) == 0
    assert "20 users" in capsys.readouterr().out
    assert main(["recommend", str(model), "用户3", "用户4", "-k", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["user"] for row in rows] == ["用户3"] * 2 + ["用户4"] * 2
    assert [row["rank"] for row in rows] == ["1", "2"] * 2
    assert all(row["item"].startswith("film ") for row in rows)
    assert main(["recommend", str(model), "--format", "jsonl", "-k", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 20 and set(lines[0]) == {"user", "rank", "item", "score"}


def test_fit_a_multimodal_model(events, tmp_path, rng, capsys):
    labels = recfuse.Interactions.from_frame(pd.read_csv(events), user="who", item="what").items
    vectors = tmp_path / "text.npy"
    np.save(vectors, rng.standard_normal((len(labels), 3)))
    model = tmp_path / "model.recfuse"
    arguments = columns(
        "--model", "multimodal", "--vectors", f"text={vectors}", "--out", str(model)
    )
    assert main(["fit", str(events), *arguments]) == 0
    assert recfuse.load(model).model.modalities_ == ["als", "neighbours", "text", "popularity"]
    capsys.readouterr()
    assert main(["recommend", str(model), "用户1", "-k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_verify_reads_the_whole_file(events, tmp_path, capsys, monkeypatch):
    model = tmp_path / "model.recfuse"
    main(["fit", str(events), *columns("--factors", "4", "--out", str(model))])
    capsys.readouterr()
    assert main(["verify", str(model), str(model)]) == 0
    out = capsys.readouterr().out
    assert out.count("every checksum is right") == 2
    assert "LabelledModel.users_: object (20,)" in out
    assert "can be searched from C and C++ by factors" in out
    monkeypatch.setattr(storage, "CHECKED_BYTES", 0)
    data = bytearray(model.read_bytes())
    data[data.rindex("用户".encode())] ^= 1
    model.write_bytes(data)
    assert main(["verify", str(model)]) == 2
    assert "another checksum of 'LabelledModel.users_#utf8'" in capsys.readouterr().err


@pytest.mark.parametrize("split", [[], ["--split", "time"], ["--split", "random"]])
def test_evaluate_names_the_split(events, split, capsys):
    arguments = columns("--time", "when", "--factors", "4", "--models", "popularity", "als", *split)
    assert main(["evaluate", str(events), *arguments, "-k", "5"]) == 0
    out = capsys.readouterr().out
    assert "popularity" in out and "ndcg" in out.lower()
    assert {"": "by time", "time": "by time", "random": "random"}[split[1] if split else ""] in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "missing.csv"], "missing.csv"),
        (["fit", "EVENTS"], "user"),
        (["fit", "EVENTS", *columns("--vectors", "text")], "--vectors must be NAME=FILE.npy"),
        (
            ["fit", "EVENTS", *columns("--vectors", "a=b.npy")],
            "vectors need the model 'multimodal'",
        ),
        (["fit", "EVENTS", *columns("--factors", "0")], "factors must be at least 1; got 0"),
        (["recommend", "EVENTS"], "événements.csv"),
        (["recommend", "MODEL", "nobody"], "users must be known; got 'nobody'"),
        (["recommend", "MODEL", "-k", "0"], "k must be at least 1; got 0"),
    ],
)
def test_a_wrong_request_is_one_line(arguments, message, events, tmp_path, capsys):
    model = tmp_path / "model.recfuse"
    main(["fit", str(events), *columns("--model", "item-neighbours", "--out", str(model))])
    capsys.readouterr()
    names = {"EVENTS": str(events), "MODEL": str(model)}
    assert main([names.get(word, word) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"recfuse {arguments[0]}: ")
    assert message in captured.err and len(captured.err.splitlines()) == 1


def test_folders_of_what_programs_build_against(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_development, "__file__", str(tmp_path / "_development.py"))
    assert main(["--cmake-dir"]) == 2
    assert "lib/cmake/recfuse is not there: `pip install` brings it" in capsys.readouterr().err
    (tmp_path / "lib" / "cmake" / "recfuse").mkdir(parents=True)
    assert main(["--lib-dir", "--cmake-dir"]) == 0
    lib = tmp_path / "lib"
    assert capsys.readouterr().out.split() == [str(lib), str(lib / "cmake" / "recfuse")]


def test_no_command_shows_how(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "usage: recfuse" in capsys.readouterr().err
