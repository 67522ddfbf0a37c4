"""The music scenario: its protocol hides what it says, songs become vectors, friends help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
RATE = 16_000


@pytest.fixture
def music(monkeypatch):
    pytest.importorskip("sklearn", reason="pip install 'recfuse[features]'")
    monkeypatch.syspath_prepend(FOLDER)
    import music

    return music


@pytest.fixture
def lastfm(music, data_dir):
    return data_dir / music.FOLDER


def test_without_the_data_it_says_what_is_missing_and_where_it_is(music, monkeypatch, tmp_path):
    monkeypatch.setenv("RECFUSE_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no folder lastfm-hetrec2011.*\n.*hetrec-2011") as stop:
        music.main([])
    assert stop.value.code  # a text: Python prints it and exits with 1


def test_listeners_keep_as_many_artists_as_said(music, lastfm):
    data = music.load(lastfm, least=10)
    plan = music.protocol(data.events, 30, 40)
    assert not set(plan.validation) & set(plan.test)
    whole = data.events.to_csr()
    tests = []
    for left in (1, 3, None):
        known = plan.known(data.events, left)
        train, split = known.train.to_csr(), known.split
        sizes = np.diff(train.indptr)
        for users in (plan.validation, plan.test):
            all_but = np.diff(whole.indptr)[users] - music.HELD_OUT
            assert (sizes[users] == (all_but if left is None else left)).all()
        others = np.setdiff1d(np.arange(whole.shape[0]), np.r_[plan.validation, plan.test])
        assert (train[others] != whole[others]).nnz == 0
        tests.append(split.test.to_csr())
        assert set(split.test.user_index) == set(plan.test)
        assert (np.diff(tests[-1].indptr)[plan.test] == music.HELD_OUT).all()
        # What is to be found is neither known nor left out of the lists.
        assert tests[-1].multiply(train).nnz == 0
        assert tests[-1].multiply(split.train.to_csr()).nnz == 0
        assert set(known.validation.user_index) <= set(plan.validation)
        assert known.validation.to_csr().multiply(train).nnz == 0
    assert all((test != tests[0]).nnz == 0 for test in tests)


def test_tags_on_hidden_artists_are_not_read(music, lastfm):
    data = music.load(lastfm, least=10)
    plan = music.protocol(data.events, 30, 40)
    hidden = plan.hidden(data.events)
    pairs = set(zip(data.events.user_index[hidden], data.events.item_index[hidden], strict=True))
    told = [tag for tag in data.tags if tag[:2] in pairs]
    assert told
    expected = music.tag_vectors(data, plan, dim=8)
    data.tags.extend((user, artist, "a tag that nobody else gives") for user, artist, _ in told)
    assert (music.tag_vectors(data, plan, dim=8) == expected).all()


def test_friends_help_those_of_whom_one_artist_is_known(music, lastfm, capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'recfuse[plot]'")
    plot = tmp_path / "plot.png"
    tables = music.main(["--small", "--plot", str(plot)])
    assert plot.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert list(tables) == ["1 artist known", "all artists known"]
    cold, warm = tables.values()
    gain = cold.difference("with friends", "behaviour", music.METRIC)
    assert gain.low > 0
    assert gain.mean > warm.difference("with friends", "behaviour", music.METRIC).mean
    assert cold.results["behaviour"][music.METRIC] < warm.results["behaviour"][music.METRIC]
    assert "audio: left out" in said and "with audio: not measured" in said


@pytest.fixture
def songs(tmp_path):
    """Two artists: high tones, one file by name and two in a folder; and low ones by title."""
    soundfile = pytest.importorskip("soundfile", reason="pip install 'recfuse[audio]'")
    pytest.importorskip("librosa", reason="pip install 'recfuse[audio]'")
    pitches = {"Björk/a.wav": 2000, "Björk/b.ogg": 2200, "muse - low.wav": 150, "nobody.wav": 300}
    moments = np.arange(4 * RATE) / RATE
    for name, pitch in pitches.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * moments), RATE)
    (tmp_path / "cover.jpg").write_bytes(b"no sound")
    return tmp_path


NAMES = ["Abba", "Björk", "Muse"]


def test_songs_belong_to_the_artists_they_are_named_by(music, songs):
    found = [(path.name, artist) for path, artist in music.songs_of(songs)]
    assert found == [
        ("a.wav", "Björk"),
        ("b.ogg", "Björk"),
        ("muse - low.wav", "muse"),
        ("nobody.wav", "nobody"),
    ]


def test_an_artist_is_the_mean_of_the_songs(music, songs):
    (songs / "muse - broken.wav").write_bytes(b"RIFF and nothing else")
    vectors = music.audio_vectors(songs, None, None, NAMES)
    assert vectors.shape == (3, 64)  # 20 MFCC and 12 chroma, mean and deviation
    assert not vectors[0].any()
    one = music.AudioEncoder().encode([songs / name for name in ("Björk/a.wav", "Björk/b.ogg")])
    other = music.AudioEncoder().encode([songs / "muse - low.wav"])
    rows = np.vstack([one.vectors, other.vectors]).astype(np.float64)
    deviation = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    steady = rows.std(axis=0) > 0
    expected = np.vstack([rows[:2].mean(axis=0), rows[2]])
    np.testing.assert_allclose(vectors[1:, steady], expected[:, steady], atol=1e-4)


def test_songs_go_through_a_network(music, songs):
    parser = pytest.importorskip("onnx.parser", reason="pip install 'recfuse[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'recfuse[onnx]'")
    network = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        bands (float[n, 187, 96] x) => (float[n, 96] y, float[n, 1, 96] kept)
        { y = ReduceMean<axes = [1], keepdims = 0>(x)
          kept = ReduceMean<axes = [1]>(x) }""")
    path = songs / "bands.onnx"
    path.write_bytes(network.SerializeToString())
    vectors = music.audio_vectors(songs, path, "y", NAMES)
    assert vectors.shape == (3, 96) and not vectors[0].any()
    # Standardised: where one artist is above the mean, the other is below.
    assert vectors[1, 60:].sum() > 0 > vectors[2, 60:].sum()
    assert vectors[1, :8].sum() < 0 < vectors[2, :8].sum()


def test_songs_of_unknown_artists_are_refused(music, tmp_path):
    (tmp_path / "nobody.wav").write_bytes(b"")
    with pytest.raises(SystemExit, match="is named by an artist"):
        music.audio_vectors(tmp_path, None, None, NAMES)
