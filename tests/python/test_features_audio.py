from __future__ import annotations

import io

import numpy as np
import pytest

from recfuse.features import AudioEncoder, PatchEncoder, chroma, mfcc

pytest.importorskip("librosa")
soundfile = pytest.importorskip("soundfile")
tiny = pytest.importorskip("tiny_onnx", exc_type=ImportError)

RATE = 22050
NOTES = {"C": 261.6256, "E": 329.6276, "G#": 415.3047, "A": 440.0, "B": 493.8833}


def tone(*frequencies, seconds=0.7, rate=RATE, fade=True):
    time = np.arange(int(seconds * rate)) / rate
    waves = sum(np.sin(2 * np.pi * f * time) / len(frequencies) for f in frequencies)
    return waves * (np.exp(-time) if fade else 1)


def power_spectrum(samples, n_fft, hop):
    """|STFT|^2 by the definition of the DFT, frame by frame: (frames, bins), float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(np.asarray(samples, np.float64), n_fft // 2)
    frames = [padded[s : s + n_fft] * window for s in range(0, len(samples) + 1, hop)]
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) % n_fft
    return np.abs(np.array(frames) @ np.exp(-2j * np.pi * turns / n_fft)) ** 2


def mel_filters(rate, n_fft, n_mels):
    """Slaney's mel scale, linear below 1 kHz and logarithmic above; triangles of area 1."""
    step = np.log(6.4) / 27

    def to_hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * np.exp(step * (mel - 15))

    top = rate / 2
    highest = 15 + np.log(top / 1000) / step if top >= 1000 else top * 3 / 200
    edges = [to_hertz(m) for m in np.linspace(0, highest, n_mels + 2)]
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    filters = np.zeros((n_mels, len(bins)))
    for m in range(n_mels):
        low, middle, high = edges[m : m + 3]
        rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
        filters[m] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def mfcc_reference(samples, rate, n_mfcc, n_mels, n_fft, hop):
    power = power_spectrum(samples, n_fft, hop) @ mel_filters(rate, n_fft, n_mels).T
    decibels = 10 * np.log10(np.maximum(1e-10, power))
    decibels = np.maximum(decibels, decibels.max() - 80)
    k, m = np.arange(n_mfcc)[:, None], np.arange(n_mels)
    basis = np.sqrt(2 / n_mels) * np.cos(np.pi * k * (2 * m + 1) / (2 * n_mels))
    basis[0] /= np.sqrt(2)
    return decibels @ basis.T


def chroma_reference(samples, rate, n_fft, hop):
    """Ellis's map of bins to pitch classes, one bin and one class at a time."""
    power = power_spectrum(samples, n_fft, hop)
    pitch = [12 * np.log2(rate * b / n_fft / 27.5) for b in range(1, n_fft)]
    pitch = np.array([pitch[0] - 18, *pitch])  # the bin of frequency 0 lies below all others
    widths = np.append(np.maximum(np.diff(pitch), 1), 1)
    weights = np.zeros((12, n_fft))
    for c in range(12):
        for b in range(n_fft):
            distance = (pitch[b] - c + 6 + 120) % 12 - 6
            weights[c, b] = np.exp(-0.5 * (2 * distance / widths[b]) ** 2)
    weights /= np.sqrt((weights**2).sum(axis=0))
    weights *= np.exp(-0.5 * ((pitch / 12 - 5) / 2) ** 2)
    weights = np.roll(weights, -3, axis=0)[:, : n_fft // 2 + 1]  # from A to C
    raw = power @ weights.T
    return raw / np.maximum(raw.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)


@pytest.mark.parametrize("frequencies", [(440,), (110, 220, 3000)])
@pytest.mark.parametrize(
    ("n_mfcc", "n_mels", "n_fft", "hop", "rate"),
    [(20, 128, 2048, 512, RATE), (13, 40, 512, 200, 16000), (5, 8, 400, 160, 8000)],
)
def test_mfcc_match_the_formula(frequencies, n_mfcc, n_mels, n_fft, hop, rate):
    samples = tone(*frequencies, rate=rate)
    options = {"n_mfcc": n_mfcc, "n_mels": n_mels, "n_fft": n_fft, "hop_length": hop}
    got = mfcc(samples, rate, **options)
    expected = mfcc_reference(samples, rate, n_mfcc, n_mels, n_fft, hop)
    assert (got.shape, got.dtype) == (expected.shape, np.float32)
    # Float32 spectra: a thousandth of a decibel in bands 80 dB below the loudest.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("frequencies", [(440,), (261.6256, 329.6276, 415.3047)])
@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 512), (1024, 300)])
def test_chroma_match_the_formula(frequencies, n_fft, hop):
    samples = tone(*frequencies, seconds=0.3)
    got = chroma(samples, RATE, n_fft=n_fft, hop_length=hop)
    expected = chroma_reference(samples, RATE, n_fft, hop)
    assert (got.shape, got.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_a_tone_has_its_pitch_class():
    classes = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
    for name, frequency in NOTES.items():
        for octave in (0.5, 1, 2):
            loudest = chroma(tone(octave * frequency)).mean(axis=0).argmax()
            assert classes[loudest] == name


def test_silence_and_short_sounds():
    assert not chroma(np.zeros(5000)).any()
    assert mfcc(np.zeros(5000)).shape == (10, 20)
    assert mfcc([0.5]).shape == (1, 20) and chroma([0.5, 0.1]).shape == (1, 12)


def wav(samples, rate=RATE, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def test_vectors_are_pooled_frames(tmp_path):
    samples = tone(440, 550)
    data = wav(samples, subtype="FLOAT")
    (tmp_path / "歌.wav").write_bytes(data)
    stereo = np.column_stack([samples * 1.5, samples * 0.5])
    sources = [tmp_path / "歌.wav", data, (samples, RATE), samples, stereo]
    vectors, present, failures = AudioEncoder().encode(sources)
    assert (vectors.shape, vectors.dtype) == ((5, 64), np.float32)
    assert present.all() and not failures
    rows = samples.astype(np.float32)
    parts = [frames.astype(np.float64) for frames in (mfcc(rows), chroma(rows))]
    expected = np.hstack([pool(x, axis=0) for x in parts for pool in (np.mean, np.std)])
    np.testing.assert_allclose(vectors[3], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(vectors[:3], np.repeat(vectors[3:4], 3, axis=0))
    np.testing.assert_allclose(vectors[4], vectors[3], rtol=1e-3, atol=1e-3)


def test_another_rate_is_brought_to_ours():
    encoder = AudioEncoder(["chroma"], "mean")
    same = encoder.encode([tone(440), (tone(440, rate=44100), 44100)]).vectors
    np.testing.assert_allclose(same[0], same[1], atol=0.02)
    wrong = encoder.encode([tone(440, rate=44100)]).vectors  # an octave too low
    assert not np.allclose(same[0], wrong[0], atol=0.02)


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_compressed_files(kind):
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {kind}")
    sounds = [wav(tone(440), kind=kind), tone(440)]
    vectors = AudioEncoder(["chroma"], "mean").encode(sounds).vectors
    np.testing.assert_allclose(vectors[0], vectors[1], atol=0.05)


def test_bad_files_are_skipped_with_their_names(tmp_path):
    (tmp_path / "cover.mp3").write_bytes(b"no sound")
    files = [tmp_path / "cover.mp3", tmp_path / "absent.wav"]
    sources = [tone(440), *files, wav(np.zeros(0)), [np.nan]]
    encoder = AudioEncoder(["mfcc"], "mean")
    vectors, present, failures = encoder.encode(sources, errors="skip")
    assert present.tolist() == [True, False, False, False, False]
    assert not vectors[1:].any()
    assert "cover.mp3" in failures[1] and "absent.wav" in failures[2]
    assert "n above 0" in failures[3] and "finite" in failures[4]
    with pytest.raises(ValueError, match=r"AudioEncoder: inputs\[1\] \(.*cover.mp3'\) must be"):
        encoder.encode(sources)


def bands(patch, n_mels):
    return tiny.on_cpu(
        tiny.model(
            f"bands (float[n, {patch}, {n_mels}] x) => (float[n, {n_mels}] y)"
            " { y = ReduceMean<axes = [1], keepdims = 0>(x) }"
        )
    )


@pytest.mark.parametrize("step", [None, 7])
def test_patches_of_the_spectrogram(step):
    options = {"patch": 20, "n_mels": 16, "n_fft": 512, "hop_length": 256, "sample_rate": 16000}
    encoder = PatchEncoder(bands(20, 16), ["mean", "max"], step=step, **options)
    samples = tone(440, 900, seconds=1.1, rate=16000)
    power = power_spectrum(samples, 512, 256) @ mel_filters(16000, 512, 16).T
    spectrum = np.log10(1 + 1e4 * power)
    starts = range(0, len(spectrum) - 19, step or 20)
    expected = np.array([spectrum[s : s + 20] for s in starts])
    got = encoder.patches(samples)
    assert got.dtype == np.float32 and got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    vectors = encoder.encode([samples, samples[:100]]).vectors
    means = expected.mean(axis=1)
    np.testing.assert_allclose(vectors[0], np.hstack([means.mean(0), means.max(0)]), atol=1e-4)
    assert encoder.patches(samples[:100]).shape == (1, 20, 16)


def test_decibels():
    encoder = PatchEncoder(bands(20, 16), patch=20, n_mels=16, scale="db")
    samples = tone(440, seconds=0.5, rate=16000)
    power = power_spectrum(samples, 512, 256) @ mel_filters(16000, 512, 16).T
    decibels = 10 * np.log10(np.maximum(1e-10, power))
    expected = np.maximum(decibels, decibels.max() - 80)[:20]
    np.testing.assert_allclose(encoder.patches(samples)[0], expected, atol=1e-3)


def test_no_sounds():
    assert AudioEncoder().encode([]).vectors.shape == (0, 64)
    assert PatchEncoder(bands(20, 16), patch=20, n_mels=16).encode([]).vectors.shape == (0, 16)


def test_wrong_options():
    with pytest.raises(ValueError, match=r"AudioEncoder: features must be of .*; got 'tempo'"):
        AudioEncoder(["tempo"])
    with pytest.raises(ValueError, match=r"pooling must be of .*; got 'median'"):
        AudioEncoder(pooling="median")
    with pytest.raises(ValueError, match=r"mfcc: n_mfcc must be in \[1, n_mels = 8\]; got 20"):
        mfcc(tone(440), n_mels=8)
    with pytest.raises(ValueError, match="chroma: hop_length must be at least 1; got 0"):
        chroma(tone(440), hop_length=0)
    with pytest.raises(TypeError, match=r"samples must be floats in \[-1, 1\]; got dtype int16"):
        mfcc(np.zeros(9, np.int16))
    with pytest.raises(TypeError, match="PatchEncoder: encoder must be an OnnxEncoder; got str"):
        PatchEncoder("model.onnx")
    with pytest.raises(TypeError, match="inputs must be paths, bytes, samples"):
        AudioEncoder().encode([3.5])
