"""Music: what friends, tags and sound add to what people play, on last.fm.

Plays become the strengths of an ALS and of neighbours; friends lend their taste; an artist's tags
are a text. Of some listeners no more than 1, 3 or 5 artists are known: who helps them most? With
`--audio FOLDER`, songs named by their artists are one more modality.

Needs last.fm as a folder `lastfm-hetrec2011` (see `--help`), and recfuse[features]; songs need
recfuse[audio], and a network for them recfuse[onnx].
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import shared
from lastfm import FOLDER, HELD_OUT, MISSING, Known, Listening, Protocol, load, protocol

import recfuse
from recfuse import plots
from recfuse.evaluation import Comparison, Split, Trial, compare, ranking_objective, tune
from recfuse.features import AudioEncoder, PatchEncoder, TfidfEncoder, friends_taste, pool_sequences
from recfuse.preprocess import Standardizer

SEED = 0
BASELINE, FUSED, METRIC = "behaviour", "all of them", "ndcg@20"
LEVELS = [1, 3, 5, None]  # artists known of a listener; None is all
Vectors = tuple[np.ndarray, np.ndarray | None]  # of artists, and of listeners if not by history


def tag_vectors(data: Listening, plan: Protocol, dim: int = 64) -> np.ndarray:
    """Return TF-IDF of every artist's tags, as LSA; a tag on a held-out artist would tell of it."""
    events = data.events
    hidden = plan.hidden(events)
    pairs = set(zip(events.user_index[hidden], events.item_index[hidden], strict=True))
    texts: list[list[str]] = [[] for _ in data.names]
    for user, artist, tag in data.tags:
        if (user, artist) not in pairs:
            texts[artist].append(tag.replace(" ", "_").replace("-", "_"))  # one tag, one term
    return TfidfEncoder(dim, sublinear=True).fit_transform([" ".join(words) for words in texts])


def songs_of(folder: Path) -> list[tuple[Path, str]]:
    """Return sounds and their artists: `Artist/x.ogg`, `Artist - x.mp3`, `Artist.wav`."""
    endings = {".wav", ".flac", ".ogg", ".oga", ".mp3"}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)
    return [
        (path, path.parent.name if path.parent != folder else path.stem.split(" - ")[0])
        for path in files
    ]


def audio_vectors(
    folder: Path, model: Path | None, output: str | None, names: list[str]
) -> np.ndarray:
    """Return the mean over every artist's songs; a row of zeros where there is none."""
    encoder: AudioEncoder | PatchEncoder = AudioEncoder()
    if model is not None:
        encoder = PatchEncoder(recfuse.OnnxEncoder(model, output=output))
    row_of = {name.casefold(): row for row, name in enumerate(names)}
    songs = [(path, row_of[a.casefold()]) for path, a in songs_of(folder) if a.casefold() in row_of]
    if not songs:
        sys.exit(f"music: no song in {folder} is named by an artist of last.fm, like 'Muse.wav'")
    songs.sort(key=lambda song: song[1])
    sounds = encoder.encode([path for path, _ in songs], errors="skip", show_progress=True)
    for reason in sounds.failures.values():
        print(f"   left out: {reason}")
    # Columns of MFCC and of networks differ in scale, and the cosine goes by the largest.
    rows = Standardizer().fit_transform(np.where(sounds.present[:, None], sounds.vectors, np.nan))
    rows = np.nan_to_num(rows)
    lengths = np.bincount([row for _, row in songs], minlength=len(names))
    return pool_sequences(rows, lengths, weights=sounds.present.astype(float))


def choose_als(split: Split) -> dict[str, float]:
    """Return the best parameters on the validation, by ALS alone."""

    def make_model(trial: Trial) -> recfuse.AlternatingLeastSquares:
        factors = trial.suggest_int("factors", 1, 256)
        regularization = trial.suggest_float("regularization", 0.01, 100)
        return als(factors=factors, regularization=regularization)

    grid = {"factors": [16, 32, 64], "regularization": [1.0, 10.0, 30.0]}
    found = tune(ranking_objective(make_model, split, metric=METRIC), grid=grid)
    print(f"   {len(found.trials)} tried; {METRIC} {found.best_value:.4f} by {found.best_params}")
    return found.best_params


def als(**params: float) -> recfuse.AlternatingLeastSquares:
    return recfuse.AlternatingLeastSquares(**params, random_state=SEED)


def friends_vectors(data: Listening, known: sp.csr_array, params: dict[str, float]) -> Vectors:
    """Return artists in the space of an ALS, and listeners where their friends' taste puts them."""
    model = als(**params).fit(known)
    return model.item_factors_, model.fold_in(friends_taste(data.friends, known))


def fit(
    known: Known, content: dict[str, Vectors], params: dict[str, float]
) -> dict[str, recfuse.MultimodalRecommender]:
    """Fit behaviour alone, with every other modality, and with all; weights by the validation."""
    chosen = {BASELINE: [], **{f"with {name}": [name] for name in content}, FUSED: list(content)}
    models = {}
    for title, names in chosen.items():
        behaviour = {"als": als(**params), "neighbours": recfuse.ItemNeighbours(k=50)}
        models[title] = recfuse.MultimodalRecommender(behaviour, random_state=SEED).fit(
            known.train,
            items={name: content[name][0] for name in names},
            users={name: content[name][1] for name in names if content[name][1] is not None},
            validation=known.validation,
        )
    return models


def alone(model: recfuse.MultimodalRecommender, split: Split) -> dict[str, float]:
    """Return the metric of every modality of a model by itself, to see why they help."""
    single = {name: partial(model.recommend, weights={name: 1}) for name in model.modalities_}
    return {name: found[METRIC] for name, found in compare(single, split, k=20).results.items()}


def friends_reach(data: Listening, split: Split) -> tuple[float, float]:
    """Return the share of artists to be found that a friend plays, or a friend of another."""
    others = np.random.default_rng(SEED).permutation(data.events.n_users)
    played = split.train.to_csr().astype(bool)
    wanted = split.test.to_csr().astype(bool)
    shares = [(who @ played).multiply(wanted).nnz for who in (data.friends, data.friends[others])]
    return shares[0] / wanted.nnz, shares[1] / wanted.nnz


def reasons(by_level: dict[str, dict[str, float]], reach: tuple[float, float]) -> str:
    """Say from the numbers why friends and tags help where they do."""
    (least, few), (most, many) = next(iter(by_level.items())), list(by_level.items())[-1]

    def change(name: str) -> str:
        return f"{few[name]:.3f} with {least} and {many[name]:.3f} with {most}"

    return (
        f"Friends play {reach[0]:.0%} of the artists to be found, friends of somebody else "
        f"{reach[1]:.0%}; that needs no history: alone they find {change('friends')}, "
        f"ALS {change('als')}. Tags describe the artists that are known, so they need some: "
        f"{change('tags')}."
    )


def show_listener(
    data: Listening, known: Known, model: recfuse.MultimodalRecommender, k: int = 5
) -> None:
    """Print the list with the most hits, and what speaks for every artist on it."""
    wanted, played = known.split.test.to_csr(), known.split.train.to_csr()
    users = np.flatnonzero(np.diff(wanted.indptr))
    ids, _ = model.recommend(users, k, user_items=played[users])
    hits = [np.isin(row, wanted[[u]].indices) for u, row in zip(users, ids, strict=True)]
    best = int(np.argmax([hit.sum() for hit in hits]))
    user = int(users[best])
    plays = ", ".join(data.names[artist] for artist in known.train.to_csr()[[user]].indices)
    print(f"   known: {plays}; {data.friends[[user]].nnz} friends. * is an artist to be found")
    for artist, hit in zip(ids[best].tolist(), hits[best], strict=True):
        why = model.explain(user, artist).contributions
        parts = [f"{name} {value:+.2f}" for name, value in why.items() if abs(value) >= 0.005]
        print(f"   {'*' if hit else ' '} {data.names[artist]:<24} {', '.join(parts)}")


def parse(arguments: list[str] | None) -> Namespace:
    parser = shared.options("What friends, tags and sound add to what people play, on last.fm.")
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="FOLDER",
        help="songs named by artist: 'Muse.wav', 'Muse - Uprising.mp3', 'Muse/any name.ogg'",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="ONNX network for log-mel patches of 187 x 96, such as musicnn's, for the songs; "
        "without it they become MFCC and chroma",
    )
    parser.add_argument("--output", help="output of the network, where it has several")
    return parser.parse_args(arguments)


def prepare(data: Listening, plan: Protocol, options: Namespace) -> dict[str, Vectors]:
    """Return the vectors that do not depend on how many artists are known."""
    vectors = {"tags": tag_vectors(data, plan)}
    if options.audio is not None:
        vectors["audio"] = audio_vectors(options.audio, options.model, options.output, data.names)
    plays = np.bincount(data.events.item_index, minlength=len(data.names))
    for name, rows in vectors.items():
        there = rows.any(axis=1)
        print(
            f"   {name}: {there.sum()} of {len(rows)} artists, with "
            f"{plays[there].sum() / plays.sum():.0%} of the events; {rows.shape[1]} columns"
        )
    if options.audio is None:
        print("   audio: left out, for want of songs (--audio FOLDER)")
    return {name: (rows, None) for name, rows in vectors.items()}


def main(arguments: list[str] | None = None) -> dict[str, Comparison]:
    options = parse(arguments)
    folder = shared.find_data(FOLDER)
    if folder is None:
        sys.exit(MISSING)
    n_validation, n_test, levels = (40, 60, [1, None]) if options.small else (100, 400, LEVELS)
    step = shared.Steps()

    step("Load plays, friends and tags")
    data = load(folder, least=10 if options.small else 1)
    print(f"   {data.events}; {data.friends.nnz // 2} friendships, {len(data.tags)} tags")

    step(f"Hide {HELD_OUT} random artists of some listeners: plays have no dates to cut at")
    plan = protocol(data.events, n_validation, n_test)
    print(f"   {n_validation} listeners to choose everything on, {n_test} others for the test")

    step("Choose the parameters of ALS")
    everything = plan.known(data.events, None)
    params = choose_als(Split(everything.train, everything.validation, "validation"))

    step("Vectors of what artists are")
    content = prepare(data, plan, options)

    step("Fit with few artists of these listeners known, and with all")
    tables, single = {}, {}
    for left in levels:
        group = "all artists known" if left is None else f"{left} artist{'s'[: left - 1]} known"
        known = plan.known(data.events, left)
        content["friends"] = friends_vectors(data, known.train.to_csr(), params)
        models = fit(known, content, params)
        weights = [f"{name} {weight:.2f}" for name, weight in models[FUSED].weights_.items()]
        print(f"   {group}; weights: {', '.join(weights)}")
        tables[group] = compare(models, known.split, k=20)
        single[group] = alone(models[FUSED], known.split)
        if left is not None:
            shown = known, models[FUSED]

    step("What every modality is worth on the test")
    print(shared.gain_table(tables, BASELINE, METRIC))
    print("" if "audio" in content else "with audio: not measured, no songs were given\n")
    show_alone(single)
    print(f"\n{shared.in_words(tables, BASELINE, METRIC, combined=FUSED)}")
    print(reasons(single, friends_reach(data, everything.split)))

    step(f"One listener of whom {levels[-2]} are known")
    show_listener(data, *shown)
    if options.plot:
        plots.comparison_bars(tables[group], METRIC).savefig(options.plot)
    step.done()
    return tables


def show_alone(single: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(single.values())))
    print(f"{METRIC + ' alone':18}" + "".join(f"{name:>12}" for name in names))
    for group, values in single.items():
        print(f"{group:18}" + "".join(f"{values[name]:12.4f}" for name in names))


if __name__ == "__main__":
    main()
