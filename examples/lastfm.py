"""Last.fm as the music example takes it: plays, friends, tags, and whose artists are hidden."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import recfuse
from recfuse.evaluation import Split
from recfuse.preprocess import EventReader

FOLDER = "lastfm-hetrec2011"
MISSING = f"""There is no folder {FOLDER} in RECFUSE_DATA or ../shared/data.
Make it of "Last.FM" of https://grouplens.org/datasets/hetrec-2011 (not for commercial use):
  lastfm.npz      listen_user, listen_artist, listen_count; friend_a, friend_b; tag_user,
                  tag_artist, tag_id: the columns of its user_*.dat
  artists.tsv.gz  artist_id, name, with a header
  tags.tsv.gz     tag_id, tag, with a header"""
SEED = 0
HELD_OUT = 10  # artists of each listener in the validation and in the test


@dataclass(frozen=True)
class Listening:
    """What people play, whom they know, and who called an artist what."""

    events: recfuse.Interactions
    friends: sp.csr_array  # (n_users, n_users)
    names: list[str]  # of the artists
    tags: list[tuple[int, int, str]]  # positions of user (-1: plays nothing) and artist; the tag


def load(folder: Path, least: int = 1) -> Listening:
    """Read the files; `least` is the fewest listeners of an artist, and artists of a listener."""
    data = np.load(folder / "lastfm.npz")
    table = {name: data[f"listen_{name}"] for name in ("user", "artist", "count")}
    # Strength 1 + ln(1 + plays / 100): ten times the plays are not ten times the love.
    reader = EventReader(user="user", item="artist", amount="count", amount_unit=100)
    events = reader.fit_transform(table).core(least).compact()
    users = {user: row for row, user in enumerate(events.users.tolist())}
    artists = {artist: row for row, artist in enumerate(events.items.tolist())}
    ties = [
        (users[a], users[b])
        for a, b in zip(data["friend_a"].tolist(), data["friend_b"].tolist(), strict=True)
        if a in users and b in users
    ]
    friends = sp.csr_array(
        (np.ones(len(ties), np.float32), np.array(ties).T), shape=(len(users), len(users))
    )
    tag_names = read_names(folder / "tags.tsv.gz")
    columns = (data[name].tolist() for name in ("tag_user", "tag_artist", "tag_id"))
    tags = [
        (users.get(user, -1), artists[artist], tag_names[tag])
        for user, artist, tag in zip(*columns, strict=True)
        if artist in artists
    ]
    names = read_names(folder / "artists.tsv.gz")
    return Listening(events, friends, [names[a] for a in artists], tags)


def read_names(path: Path) -> dict[int, str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        rows = [line.rstrip("\n").split("\t", 1) for line in file]
    return {int(number): name for number, name in rows}


@dataclass(frozen=True)
class Known:
    """What is known when listeners of the validation and the test have few artists left."""

    train: recfuse.Interactions
    validation: recfuse.Interactions
    split: Split  # its train has all but the test: lists leave out what else somebody plays


@dataclass(frozen=True)
class Protocol:
    """Listeners for the validation and for the test, and a random order of everybody's artists."""

    validation: np.ndarray  # users
    test: np.ndarray
    rank: np.ndarray  # of every event among those of its user; the first HELD_OUT are to be found

    def hidden(self, events: recfuse.Interactions) -> np.ndarray:
        both = np.concatenate([self.validation, self.test])
        return np.isin(events.user_index, both) & (self.rank < HELD_OUT)

    def known(self, events: recfuse.Interactions, left: int | None) -> Known:
        """Leave `left` artists to the listeners of both groups; None leaves all but the hidden."""
        judged = np.isin(events.user_index, self.test)
        tried = np.isin(events.user_index, self.validation) | judged
        away = tried & (self.rank < HELD_OUT)
        if left is not None:
            away |= tried & (self.rank >= HELD_OUT + left)
        hidden = self.hidden(events)
        name = (
            f"{HELD_OUT} random artists of each of {len(self.test)} listeners, of whose others "
            f"{'all' if left is None else left} are known, seed {SEED}"
        )
        split = Split(events.select(~hidden), events.select(hidden & judged), name)
        return Known(events.select(~away), events.select(away & ~judged), split)


def protocol(events: recfuse.Interactions, n_validation: int, n_test: int) -> Protocol:
    rng = np.random.default_rng(SEED)
    sizes = np.bincount(events.user_index, minlength=events.n_users)
    people = rng.permutation(np.flatnonzero(sizes >= 2 * HELD_OUT))
    order = np.lexsort((rng.random(len(events)), events.user_index))
    rank = np.empty(len(events), np.int64)
    rank[order] = np.arange(len(events)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Protocol(people[:n_validation], people[n_validation : n_validation + n_test], rank)
