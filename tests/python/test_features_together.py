from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from recfuse import FusedIndex
from recfuse.errors import FormatError
from recfuse.features import AudioEncoder, ColourHistogram, ImageEncoder, encode_all

MODES = ["sequential", "parallel", "fused"]


class Counting:
    """An encoder that says what it was asked, and rounds as one that works in batches does."""

    def __init__(self, name="v1"):
        self.fingerprint = name
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        batch = sum(map(len, texts)) * 1e-3
        return np.array([[len(text), text.count("a") + batch] for text in texts], np.float32)


def letters(n):
    return ["a" * (i % 5) + f"b{i}" for i in range(n)]


@pytest.fixture
def books(rng, tmp_path):
    """Titles, covers and reading voices; some lack one, and encoders of all three."""
    image_library = pytest.importorskip("PIL.Image")
    pytest.importorskip("librosa")
    tiny = pytest.importorskip("tiny_onnx", exc_type=ImportError)
    covers = []
    for i in range(18):
        pixels = rng.integers(0, 255, (12, 10, 3)).astype(np.uint8)
        image_library.fromarray(pixels).save(tmp_path / f"{i}.png")
        covers.append(tmp_path / f"{i}.png")
    covers[4] = None
    voices = [rng.standard_normal(3000) / 9 if i % 3 else None for i in range(18)]
    network = tiny.on_cpu(
        tiny.model(
            "net (float[n, 3, 8, 8] x) => (float[n, 3, 1, 1] y) { y = GlobalAveragePool(x) }"
        )
    )
    vectors = tiny.table(rng)
    titles = tiny.on_cpu(
        tiny.tokens(vectors), tokenizer=tiny.tokenizer(), pooling="mean", batch_size=4
    )
    inputs = {"title": tiny.TEXTS, "cover": covers, "voice": voices}
    return inputs, {
        "title": titles,
        "cover": ImageEncoder(network, size=8, resize=9),
        "voice": AudioEncoder(["mfcc"], "mean"),
    }


def assert_equal(got, expected):
    for ours, theirs in zip(got[:2], expected[:2], strict=True):
        assert list(ours) == list(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert got.failures == expected.failures


@pytest.mark.parametrize("chunk", [1, 5, 256])
def test_every_mode_gives_the_same_bytes(books, chunk, tmp_path):
    inputs, encoders = books
    first = encode_all(inputs, encoders, mode="sequential", chunk=chunk)
    for mode in MODES:
        assert_equal(encode_all(inputs, encoders, mode=mode, chunk=chunk), first)
        fresh = tmp_path / f"{mode}{chunk}.vectors"
        # Equal titles are encoded once, so what shares a batch differs from that without a cache.
        cold = encode_all(inputs, encoders, mode=mode, chunk=chunk, cache=fresh)
        warm = encode_all(inputs, encoders, mode="fused", chunk=3, cache=fresh)
        assert_equal(warm, cold)
        for name in inputs:
            np.testing.assert_allclose(
                cold.vectors[name], first.vectors[name], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("cached", [False, True])
def test_the_batches_are_the_same_in_every_mode(cached, tmp_path):
    """The vectors of `Counting` tell which texts shared a batch."""
    inputs = {"a": [*letters(9), None, *letters(11)], "b": [None] * 3 + letters(18)}
    runs = [
        encode_all(
            inputs,
            {"a": Counting(), "b": Counting("v2")},
            mode=mode,
            chunk=4,
            cache=tmp_path / mode if cached else None,
        )
        for mode in MODES
    ]
    assert_equal(runs[1], runs[0])
    assert_equal(runs[2], runs[0])


def test_vectors_are_those_of_the_encoders_alone(books):
    inputs, encoders = books
    encoded = encode_all(inputs, encoders)
    np.testing.assert_allclose(
        encoded.vectors["title"], encoders["title"].encode(inputs["title"]), rtol=1e-5
    )
    rows = [row for row in range(18) if inputs["cover"][row] is not None]
    alone = encoders["cover"].encode([inputs["cover"][row] for row in rows]).vectors
    np.testing.assert_allclose(encoded.vectors["cover"][rows], alone, rtol=1e-5)
    assert np.flatnonzero(~encoded.present["cover"]).tolist() == [4]
    assert encoded.present["voice"].tolist() == [i % 3 != 0 for i in range(18)]
    ids, _ = FusedIndex(encoded.vectors, present=encoded.present).topk(
        {name: vectors[1:2] for name, vectors in encoded.vectors.items()}, k=1
    )
    assert ids[0, 0] == 1


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_encoded_twice(mode, tmp_path):
    encoder, texts = Counting(), [*letters(20), "same", "same", None, "same"]
    run = {"mode": mode, "chunk": 6, "cache": tmp_path / "vectors"}
    first = encode_all({"text": texts}, {"text": encoder}, **run)
    assert sorted(encoder.asked) == sorted({*letters(20), "same"})
    # In another order, with new ones between.
    order = np.random.default_rng(0).permutation(24)
    second = encode_all({"text": [texts[i] for i in order] + ["new"]}, {"text": encoder}, **run)
    assert encoder.asked[21:] == ["new"]
    np.testing.assert_array_equal(second.vectors["text"][:24], first.vectors["text"][order])
    np.testing.assert_array_equal(second.present["text"][:24], first.present["text"][order])
    # Another encoder shares nothing.
    other = Counting("v2")
    encode_all({"text": ["same"]}, {"text": other}, **run)
    assert other.asked == ["same"]


def test_a_file_is_known_by_its_content(rng, tmp_path, monkeypatch):
    image_library = pytest.importorskip("PIL.Image")
    image_library.fromarray(rng.integers(0, 255, (9, 9, 3)).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    encoders, run = {"cover": ColourHistogram()}, {"cache": tmp_path / "vectors"}
    first = encode_all({"cover": [tmp_path / "a.png"]}, encoders, **run)
    monkeypatch.setattr(ColourHistogram, "_decode", None)  # would fail
    second = encode_all({"cover": [str(tmp_path / "b.png")]}, encoders, **run)
    np.testing.assert_array_equal(second.vectors["cover"], first.vectors["cover"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_loses_one_chunk(mode, kind, tmp_path):
    class Interrupted(Counting):
        def encode(self, texts):
            if len(self.asked) >= 10:
                raise kind("stop")
            return super().encode(texts)

    run = {"mode": mode, "chunk": 5, "cache": tmp_path / "vectors"}
    threads = threading.active_count()
    with pytest.raises(kind, match="stop"):
        encode_all({"text": letters(30)}, {"text": Interrupted()}, **run)
    assert threading.active_count() == threads
    again = Counting()
    encode_all({"text": letters(30)}, {"text": again}, **run)
    assert again.asked == letters(30)[10:]


def test_after_an_error_the_other_threads_stop_soon():
    asked = []

    def slow(texts):
        asked.append(texts)
        time.sleep(0.01)
        return [[0.0]] * len(texts)

    def failing(texts):
        raise RuntimeError("no network")

    inputs, encoders = {"a": letters(300), "b": letters(300)}, {"a": slow, "b": failing}
    with pytest.raises(RuntimeError, match="no network"):
        encode_all(inputs, encoders, mode="parallel", chunk=1)
    assert len(asked) < 150


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_read_is_told(rng, mode, tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "bad.png").write_text("no image")
    red = np.full((3, 3, 3), [255, 0, 0], np.uint8)
    covers = [red, tmp_path / "bad.png", None, tmp_path / "bad.png", tmp_path / "absent.png"]
    run = {"mode": mode, "cache": tmp_path / "vectors"}
    for _ in range(2):  # a failure is no vector to keep
        encoded = encode_all({"c": covers}, {"c": ColourHistogram()}, errors="skip", **run)
        assert encoded.present["c"].tolist() == [True, False, False, False, False]
        assert list(encoded.failures["c"]) == [1, 3, 4]
        assert "bad.png" in encoded.failures["c"][3]
    with pytest.raises(ValueError, match=r"ColourHistogram: inputs\['c'\]\[1\] .*bad.png"):
        encode_all({"c": covers}, {"c": ColourHistogram()}, **run)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cached", [False, True])
def test_failures_name_the_row_and_the_file_of_the_catalogue(mode, cached, tmp_path):
    """Not the row of the chunk, nor another file with the same content."""
    pytest.importorskip("PIL")
    for name in ("first.png", "second.png"):
        (tmp_path / name).write_text("no image")
    red = np.full((3, 3, 3), [255, 0, 0], np.uint8)
    covers = [red, None, tmp_path / "first.png", red, tmp_path / "second.png", b"neither"]
    run = {"mode": mode, "chunk": 2, "cache": tmp_path / "vectors" if cached else None}
    for _ in range(2):
        encoded = encode_all({"c": covers}, {"c": ColourHistogram()}, errors="skip", **run)
        fault = "must be a readable image; got a file of no known format"
        assert encoded.failures["c"] == {
            2: f"inputs['c'][2] ({str(tmp_path / 'first.png')!r}) {fault}",
            4: f"inputs['c'][4] ({str(tmp_path / 'second.png')!r}) {fault}",
            5: f"inputs['c'][5] {fault}",
        }


def test_parallel_is_parallel():
    """Each waits for the other: one after the other, neither would come through."""
    both = threading.Barrier(2, timeout=30)

    def encode(texts):
        both.wait()
        return [[1.0]] * len(texts)

    encoded = encode_all({"a": ["x"], "b": ["y"]}, {"a": encode, "b": encode}, mode="parallel")
    assert encoded.present["a"].all() and encoded.present["b"].all()


def test_the_order_of_the_modes():
    def order(mode):
        seen = []
        encoders = {
            name: lambda texts, name=name: seen.append(name) or [[0.0]] * len(texts)
            for name in "ab"
        }
        encode_all({"a": letters(4), "b": letters(4)}, encoders, mode=mode, chunk=2)
        return "".join(seen)

    assert order("sequential") == "aabb"
    assert order("fused") == "abab"


def test_arrays_and_nothing():
    rows = np.arange(6.0).reshape(3, 2)
    encoded = encode_all({"x": rows}, {"x": lambda batch: batch * 2}, chunk=2)
    np.testing.assert_array_equal(encoded.vectors["x"], rows * 2)
    nothing = encode_all({"x": []}, {"x": Counting()})
    assert nothing.vectors["x"].shape == (0, 0) and nothing.present["x"].shape == (0,)


def test_progress(capsys):
    pytest.importorskip("tqdm")
    encode_all({"x": letters(3)}, {"x": Counting()}, show_progress=True)
    assert "encode_all" in capsys.readouterr().err


def test_a_damaged_cache_is_told(tmp_path):
    (tmp_path / "vectors").write_bytes(b"not a database " * 100)
    with pytest.raises(
        FormatError, match=r"cache must be a file that encode_all made; got .*Delete"
    ):
        encode_all({"x": ["a"]}, {"x": Counting()}, cache=tmp_path / "vectors")


@pytest.mark.parametrize(
    ("inputs", "encoders", "options", "error", "message"),
    [
        ({"x": ["a"]}, {"y": len}, {}, ValueError, r"encoders must have the modalities \['x'\]"),
        ({"x": ["a"], "y": []}, {"x": len, "y": len}, {}, ValueError, "must have 1 items like"),
        ({"x": ["a"]}, {"x": len}, {"mode": "fast"}, ValueError, "mode must be one of"),
        ({"x": ["a"]}, {"x": len}, {"chunk": 0}, ValueError, "chunk must be at least 1; got 0"),
        ({"x": ["a"]}, {"x": len}, {"errors": "warn"}, ValueError, "errors must be 'raise' or"),
        ({"x": ["a"]}, {"x": 3}, {}, TypeError, "must have encode() or be a function; got int"),
        ({"x": "abc"}, {"x": len}, {}, TypeError, "must be a sequence; got str"),
        ({"x": ["a"]}, {"x": len}, {}, ValueError, "must give one vector per input (1); got shape"),
        ({"x": ["a"]}, {"x": lambda x: [[np.nan]]}, {}, ValueError, "must give finite vectors"),
        (["a"], {"x": len}, {}, TypeError, "inputs must be a mapping by modality; got list"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_wrong_arguments(inputs, encoders, options, error, message, mode):
    with pytest.raises(error) as caught:
        encode_all(inputs, encoders, **{"mode": mode, **options})
    assert str(caught.value).startswith("encode_all: ")
    assert message.replace("\\", "") in str(caught.value)


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(ImportError, match=r"ColourHistogram needs PIL.* 'recfuse\[image\]'"):
        ColourHistogram().encode([b""])
    with pytest.raises(ImportError, match=r"librosa: pip install 'recfuse\[audio\]'"):
        AudioEncoder().encode([(np.zeros(9), 8000)])
