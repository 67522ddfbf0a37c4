"""Books by what people bought, and by blurb, cover and reading: from files to lists.

The books are made up, their files are real: PNG covers whose colours and shapes are a designer's,
WAV readings whose pitch and pace are a narrator's, blurbs of a genre's words. Every reader has a
genre, a look and a voice that they like; the binding is drawn at random and is worth nothing.
Needs recfuse[features,frames].
"""

from __future__ import annotations

import csv
import tempfile
import time
import wave
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shared
from shared import BEHAVIOUR, EVERYTHING

import recfuse
from recfuse import Interactions
from recfuse.evaluation import Comparison, compare, time_split
from recfuse.features import (
    AttributeEncoder,
    AudioEncoder,
    ColourHistogram,
    TfidfEncoder,
    encode_all,
)
from recfuse.preprocess import Cleaner, Report, Standardizer, read_table

K = 10
METRIC = f"ndcg@{K}"
BOUGHT = 3.0  # strength of a purchase; that of a sample is 1
FEW = 20  # events of a reader
RARE = 5  # events of a book
DAYS = 300  # of the log
RATE = 22050  # samples a second
GENRES = {
    "crime": "detective murder alibi inspector corpse clue suspect night witness police",
    "romance": "love kiss wedding heart summer letter longing dance promise wedding",
    "space": "starship planet orbit alien captain engine galaxy signal crew moon",
    "history": "empire king war castle siege treaty knight throne court rebellion",
    "cooking": "recipe oven butter garlic bread kitchen sauce spice harvest table",
    "nature": "forest river bird mountain seed winter wolf tide meadow storm",
}
FILLER = "a story about the year when everything in one small town began to change for good"
LOOKS = [
    ((20, 20, 30), (200, 30, 40)),
    ((250, 220, 225), (240, 120, 150)),
    ((10, 30, 90), (90, 200, 250)),
    ((235, 225, 190), (120, 80, 40)),
    ((240, 245, 230), (60, 140, 70)),
]  # background and shapes of a designer
VOICES = [(110.0, 2.0), (150.0, 4.0), (210.0, 3.0), (260.0, 6.0)]  # hertz, syllables a second


Vectors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """What was planted: genre, look and voice of every book, and of every reader."""

    books: np.ndarray
    readers: np.ndarray


def make_shop(folder: Path, n_books: int, n_readers: int, seed: int = 0) -> Truth:
    """Write a catalogue, its covers and readings, and a log of what readers did."""
    rng = np.random.default_rng(seed)
    kinds = (len(GENRES), len(LOOKS), len(VOICES))
    truth = Truth(rng.integers(0, kinds, (n_books, 3)), rng.integers(0, kinds, (n_readers, 3)))
    rows = []
    for book, (genre, look, voice) in enumerate(truth.books.tolist()):
        cover, reading = folder / f"cover-{book}.png", folder / f"reading-{book}.wav"
        draw_cover(cover, look, rng)
        if rng.random() < 0.8:  # not every book is read aloud
            speak(reading, voice, rng)
        binding = ("paperback", "hardcover")[rng.integers(2)]
        rows.append([f"book-{book}", blurb(genre, rng), cover.name, reading.name, binding])
    (folder / "cover-3.png").write_bytes(b"half of a file")
    _write(folder / "books.csv", ["book", "blurb", "cover", "reading", "binding"], rows)
    header = ["reader", "book", "did", "time"]
    _write(folder / "events.csv", header, events_of(truth, rng))
    return truth


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def draw_cover(path: Path, look: int, rng: np.random.Generator) -> None:
    from PIL import Image, ImageDraw

    ground, shapes = (
        tuple(int(c) for c in np.clip(rng.normal(colour, 25), 0, 255)) for colour in LOOKS[look]
    )
    image = Image.new("RGB", (60, 90), ground)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 7)):
        x, y, size = rng.integers(0, 50), rng.integers(0, 80), rng.integers(6, 30)
        draw = pen.ellipse if look % 2 else pen.rectangle
        draw([int(x), int(y), int(x + size), int(y + size)], fill=shapes)
    image.save(path)


def speak(path: Path, voice: int, rng: np.random.Generator, seconds: float = 1.0) -> None:
    """Write syllables of a voice: tones with overtones, in bursts, with breath."""
    pitch, pace = VOICES[voice]
    t = np.arange(int(RATE * seconds)) / RATE
    tone = pitch * rng.normal(1, 0.03) * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(tone) / RATE
    sound = sum(np.sin(n * phase) / n for n in range(1, 6))
    bursts = 0.5 + 0.5 * np.sin(2 * np.pi * pace * rng.normal(1, 0.05) * t)
    samples = 0.2 * sound * bursts + 0.02 * rng.normal(size=len(t))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def blurb(genre: int, rng: np.random.Generator) -> str:
    words = list(GENRES.values())
    own = rng.choice(words[genre].split(), 3)
    other = rng.choice(words[rng.integers(len(words))].split(), 1)
    return " ".join(rng.permutation([*own, *other, *rng.choice(FILLER.split(), 8)]))


def events_of(truth: Truth, rng: np.random.Generator) -> list[list[Any]]:
    """Draw what readers looked at and bought: of what is out, likelier what agrees with them."""
    agree = truth.readers[:, None, :] == truth.books[None, :, :]
    pull = np.exp(agree @ np.array([2.0, 1.5, 1.5]) + rng.normal(0, 0.5, len(truth.books)))
    published = rng.uniform(-DAYS / 4, DAYS, len(truth.books))  # a fifth is there from the start
    rows = []
    for reader, wanted in enumerate(pull):
        joined = rng.uniform(0, 0.8 * DAYS)
        days = np.sort(joined + rng.exponential(60, rng.poisson(20) + 5))
        for day in days[days < DAYS].tolist():
            chance = wanted * (published <= day)
            if not chance.any():
                continue
            book = int(rng.choice(len(chance), p=chance / chance.sum()))
            wanted[book] = 0  # nobody reads a book again
            did = "buy" if rng.random() < 0.6 else "sample"
            rows.append([f"reader-{reader}", f"book-{book}", did, int(86_400 * day)])
    return rows


def read_events(folder: Path) -> Interactions:
    """Return a strength per reader and book; a purchase says three times what a sample does.

    Books are numbered as in the catalogue: by first appearance, the smaller number, which wins
    where scores are equal, would tell which books are going to be read much.
    """
    table = read_table(folder / "events.csv")
    table["strength"] = table["did"].map({"buy": BOUGHT, "sample": 1.0})
    events = Interactions.from_frame(
        table,
        user="reader",
        item="book",
        value="strength",
        timestamp="time",
        item_labels=read_table(folder / "books.csv")["book"],
    )
    report = Report()
    events = Cleaner(above=0, duplicates="max").transform(events, report=report)
    print(report)
    return events


def encode(folder: Path) -> Vectors:
    """Return the vectors of all books by modality; of a missing or broken file, NaN."""
    table = read_table(folder / "books.csv")
    books = table["book"].tolist()
    texts = TfidfEncoder(dim=24, stop_words="english").fit(table["blurb"])
    encoders = {"text": texts, "cover": ColourHistogram(bins=4), "voice": AudioEncoder()}
    inputs = {
        "text": table["blurb"].tolist(),
        "cover": [folder / name for name in table["cover"]],
        "voice": [path if (path := folder / name).exists() else None for name in table["reading"]],
    }
    for attempt in ("first", "again"):
        started = time.perf_counter()
        found = encode_all(inputs, encoders, cache=folder / "vectors.sqlite", errors="skip")
        print(f"   encoded {attempt}: {time.perf_counter() - started:.2f} s")
    for name, present in found.present.items():
        print(f"   {name}: {present.sum()} of {len(books)} books, {found.vectors[name].shape[1]} d")
    for name, reasons in found.failures.items():
        for book, why in reasons.items():
            print(f"   {books[book]} without {name}: ...{why[-60:]}")
    vectors = dict(found.vectors)
    # Columns of sound are on scales of their own; what is missing must not become a value.
    vectors["voice"][~found.present["voice"]] = np.nan
    vectors["voice"] = Standardizer().fit_transform(vectors["voice"])
    vectors["binding"] = AttributeEncoder(["binding"]).fit_transform(table)
    return vectors


def split(events: Interactions) -> shared.Protocol:
    established, newcomers = shared.newcomers(events, n_known=3)
    outer = time_split(established, test_fraction=0.2)
    inner = time_split(outer.train, test_fraction=0.2)
    return shared.Protocol(
        train=inner.train,
        validation=inner.test.at_least(BOUGHT),
        test=replace(outer, test=outer.test.at_least(BOUGHT)),
        newcomers=replace(newcomers, test=newcomers.test.at_least(BOUGHT)),
    )


def behaviour() -> dict[str, Any]:
    return {
        "als": recfuse.AlternatingLeastSquares(16, regularization=3.0, alpha=3.0, random_state=0),
        "neighbours": recfuse.ItemNeighbours(k=50),
    }


def explain(
    labels: list[str], reader: int, likes: str, model: recfuse.MultimodalRecommender
) -> tuple[list[str], np.ndarray]:
    """Print a list beside what the reader likes in truth; return books and parts of scores."""
    print(f"   what was planted: {likes}")
    ids, _, parts = model.recommend([reader], k=6, contributions=True)
    books = ids[0].tolist()
    for book in books[:3]:
        print("\n" + shared.explained(labels[book], model.explain(reader, book), labels))
    return [labels[book] for book in books], parts[0]


def described(label: str, traits: np.ndarray) -> str:
    """Return a book or reader by name, with what was planted."""
    genre, look, voice = traits[int(label.rpartition("-")[2])].tolist()
    return f"{label} ({list(GENRES)[genre]}, look {look}, voice {voice})"


def main(arguments: list[str] | None = None) -> dict[str, Comparison]:
    options = shared.options(__doc__.splitlines()[0]).parse_args(arguments)
    sizes = (200, 350) if options.small else (400, 600)
    steps = shared.Steps()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps(f"Make a shop of {sizes[0]} books and {sizes[1]} readers, as files")
        truth = make_shop(folder, *sizes)
        steps("Read and clean what readers did")
        events = read_events(folder)
        print(f"   {events}")
        steps("Encode blurbs, covers and readings")
        content = encode(folder)
    steps("Split by time")
    protocol = split(events)
    print(f"   {protocol.test}\n   {protocol.newcomers}")
    steps("Fuse behaviour with each modality, weights fitted on the validation part")
    models = shared.fuse_each(protocol, behaviour(), content, k=K, cold_items=1.0)
    steps("Test every modality alone, and all together")
    table = compare(shared.alone(models[EVERYTHING]), protocol.test, k=K)
    print(table.to_text(["recall", "ndcg", "coverage", "gini"]))
    steps("Explain a list")
    books = [described(book, truth.books) for book in events.items]
    reader = int(np.bincount(protocol.train.user_index).argmax())
    likes = described(events.users[reader], truth.readers)
    shown, parts = explain(books, reader, likes, models[EVERYTHING])
    if options.plot:
        names = models[EVERYTHING].modalities_
        figure = recfuse.plots.modality_heatmap(parts, names, shown, title=f"for {likes}")
        figure.savefig(options.plot)
    steps("What is each modality worth, and to whom?")
    groups = shared.by_group(
        models, protocol, k=K, few=FEW, rare=RARE, item="books", event="events"
    )
    print(shared.gain_table(groups, BEHAVIOUR, METRIC))
    print(shared.in_words(groups, BEHAVIOUR, METRIC, combined=EVERYTHING))
    steps.done()
    return groups


if __name__ == "__main__":
    main()
