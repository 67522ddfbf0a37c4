"""Sound as vectors: MFCC and chroma, or a neural network in ONNX on patches of a spectrogram."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_int
from recfuse._named import named
from recfuse.features._extras import load_extra
from recfuse.features._kinds import Pooling
from recfuse.features._media import MediaEncoder, Unreadable
from recfuse.features.pooling import pool_sequences
from recfuse.features.spectral import as_sound, check_frames, chroma, long_enough, mfcc
from recfuse.serving import OnnxEncoder

__all__ = ["AudioEncoder", "PatchEncoder"]

Kind = Literal["mfcc", "chroma"]
Float32 = NDArray[np.float32]


class _Sounds(MediaEncoder):
    """Decodes sound to one channel of a given rate."""

    _noun = "a readable sound"
    _batch_size = 1
    _sample_rate: int

    def _decode(self, source: Any) -> NDArray[Any]:
        op = type(self).__name__
        if isinstance(source, tuple) and len(source) == 2:
            samples, rate = np.asarray(source[0]), as_int(source[1], "sample_rate")
        elif isinstance(source, (np.ndarray, list)):
            samples, rate = np.asarray(source), self._sample_rate
        else:
            samples, rate = _read(source, op)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        try:
            sound = as_sound(samples, "samples")
        except ValueError as error:
            raise Unreadable(str(error)) from error
        if rate == self._sample_rate:
            return sound
        librosa = load_extra("librosa", "audio", op)
        resampled = librosa.resample(sound, orig_sr=rate, target_sr=self._sample_rate)
        return np.asarray(resampled, np.float32)


class AudioEncoder(_Sounds):
    """Vectors of sounds by MFCC and chroma, pooled over time; no network.

    Needs librosa and soundfile (extra ``recfuse[audio]``).

    Parameters
    ----------
    features : sequence of {'mfcc', 'chroma'}, default=('mfcc', 'chroma')
    pooling : sequence of {'mean', 'std', 'max', 'sum'}, default=('mean', 'std')
        Over the frames; see `pool_sequences`. For each feature, these side by side.
    sample_rate : int, default=22050
        In hertz: what sounds are brought to.
    n_mfcc : int, default=20

    Notes
    -----
    `encode` takes paths and bytes of what libsndfile reads (WAV, FLAC, Ogg, MP3, ...), pairs of
    samples and their rate, and samples at `sample_rate`, of shape (n,) or (n, channels). Channels
    are averaged. Coefficients differ in scale: standardise the columns before you take cosines.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.features import AudioEncoder
    >>> time = np.arange(22050) / 22050
    >>> tones = [np.sin(2 * np.pi * f * time) for f in (220, 440, 550)]
    >>> vectors, present, _ = AudioEncoder(["chroma"], ["mean"]).encode(tones)
    >>> vectors.shape, vectors.argmax(axis=1)
    ((3, 12), array([9, 9, 1]))
    """

    @named("AudioEncoder")
    def __init__(
        self,
        features: Sequence[Kind] = ("mfcc", "chroma"),
        pooling: Pooling | Sequence[Pooling] = ("mean", "std"),
        *,
        sample_rate: int = 22050,
        n_mfcc: int = 20,
    ) -> None:
        kinds: tuple[Any, ...] = (features,) if isinstance(features, str) else tuple(features)
        for kind in kinds:
            if kind not in get_args(Kind):
                raise ValueError(f"features must be of {list(get_args(Kind))}; got {kind!r}")
        if not kinds:
            raise ValueError("features must name a feature; got none")
        poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        pool_sequences(np.ones((1, 1)), [1], pooling=poolings)  # knows which there are
        check_frames(sample_rate, 2048, 512)
        if not 1 <= as_int(n_mfcc, "n_mfcc") <= 128:
            raise ValueError(f"n_mfcc must be in [1, 128]; got {n_mfcc}")
        self._features: tuple[Kind, ...] = kinds
        self._pooling: tuple[Pooling, ...] = poolings
        self._sample_rate = sample_rate
        self._n_mfcc = n_mfcc

    def _vectors(self, decoded: list[NDArray[Any]]) -> Float32:
        if not decoded:
            widths = [self._n_mfcc if kind == "mfcc" else 12 for kind in self._features]
            return np.empty((0, sum(widths) * len(self._pooling)), np.float32)
        return np.concatenate([self._vector(sound) for sound in decoded])

    def _vector(self, sound: Float32) -> Float32:
        parts = []
        for kind in self._features:
            if kind == "mfcc":
                frames = mfcc(sound, self._sample_rate, n_mfcc=self._n_mfcc)
            else:
                frames = chroma(sound, self._sample_rate)
            parts.append(pool_sequences(frames, [len(frames)], pooling=self._pooling))
        return np.hstack(parts)

    def _identity(self) -> tuple[Any, ...]:
        version = load_extra("librosa", "audio", "AudioEncoder").__version__
        return ("audio", self._features, self._pooling, self._sample_rate, self._n_mfcc, version)


class PatchEncoder(_Sounds):
    r"""Vectors of sounds by a neural network that looks at patches of the mel spectrogram.

    The spectrogram :math:`\log_{10}(1 + 10^4 M P)` (``'log'``) or :math:`10 \log_{10}` of it with
    80 dB of range (``'db'``) is cut into patches of `patch` frames; the network gives a vector for
    each, and those of a sound are pooled. The defaults are those of musicnn [1]_: 3 seconds at
    16 kHz, 96 mel bands.

    Needs librosa and soundfile (extra ``recfuse[audio]``).

    Parameters
    ----------
    encoder : OnnxEncoder
        Of a network with one input of shape (n, patch, n_mels).
    pooling : {'mean', 'max', 'std', 'sum'} or a sequence of them, default='mean'
    patch, step : int, default=187 and 187
        Frames per patch, and from one patch to the next. A sound that is shorter than a patch is
        followed by silence; what is left behind the last whole patch is not looked at.
    sample_rate, n_fft, hop_length, n_mels : int, default=16000, 512, 256, 96
    scale : {'log', 'db'}, default='log'

    Notes
    -----
    `encode` takes what that of `AudioEncoder` does.

    References
    ----------
    .. [1] J. Pons, X. Serra, "musicnn: Pre-trained convolutional neural networks for music audio
       tagging", ISMIR 2019 late-breaking demos.

    Examples
    --------
    >>> import numpy as np, onnx.parser
    >>> from recfuse import OnnxEncoder
    >>> from recfuse.features import PatchEncoder
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     bands (float[n, 187, 96] x) => (float[n, 96] y)
    ...     { y = ReduceMean<axes = [1], keepdims = 0>(x) }''')
    >>> encoder = PatchEncoder(OnnxEncoder(model.SerializeToString(), device="cpu"))
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(100_000) / 16000)
    >>> encoder.encode([tone]).vectors.shape
    (1, 96)
    """

    @named("PatchEncoder")
    def __init__(
        self,
        encoder: OnnxEncoder,
        pooling: Pooling | Sequence[Pooling] = "mean",
        *,
        patch: int = 187,
        step: int | None = None,
        sample_rate: int = 16000,
        n_fft: int = 512,
        hop_length: int = 256,
        n_mels: int = 96,
        scale: Literal["log", "db"] = "log",
    ) -> None:
        if not isinstance(encoder, OnnxEncoder):
            raise TypeError(f"encoder must be an OnnxEncoder; got {type(encoder).__name__}")
        step = patch if step is None else step
        for name, value in (("patch", patch), ("step", step), ("n_mels", n_mels)):
            if as_int(value, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if scale not in ("log", "db"):
            raise ValueError(f"scale must be 'log' or 'db'; got {scale!r}")
        check_frames(sample_rate, n_fft, hop_length)
        poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        pool_sequences(np.ones((1, 1)), [1], pooling=poolings)
        self._encoder = encoder
        self._pooling: tuple[Pooling, ...] = poolings
        self._patch, self._step = patch, step
        self._sample_rate = sample_rate
        self._n_fft, self._hop_length, self._n_mels = n_fft, hop_length, n_mels
        self._scale = scale

    def patches(self, sound: Any) -> Float32:
        """Return what the network is given for one sound.

        Parameters
        ----------
        sound : path, bytes, (samples, rate) or samples

        Returns
        -------
        ndarray of shape (n_patches, patch, n_mels), float32

        Raises
        ------
        ValueError, OSError
            If it cannot be read.
        """
        return self._patches(self._decode(sound))

    def _patches(self, samples: Float32) -> Float32:
        librosa = load_extra("librosa", "audio", "PatchEncoder")
        least = max(self._n_fft, (self._patch - 1) * self._hop_length)
        power = librosa.feature.melspectrogram(
            y=long_enough(samples, least),
            sr=self._sample_rate,
            n_fft=self._n_fft,
            hop_length=self._hop_length,
            n_mels=self._n_mels,
        ).T
        spectrum = np.log10(1 + 1e4 * power) if self._scale == "log" else librosa.power_to_db(power)
        starts = range(0, len(spectrum) - self._patch + 1, self._step)
        return np.stack([spectrum[s : s + self._patch] for s in starts]).astype(np.float32)

    def _vectors(self, decoded: list[NDArray[Any]]) -> Float32:
        cut = [self._patches(sound) for sound in decoded]
        empty = np.empty((0, self._patch, self._n_mels), np.float32)
        vectors = self._encoder.encode(np.concatenate([empty, *cut]))
        return pool_sequences(vectors, [len(p) for p in cut], pooling=self._pooling)

    def _identity(self) -> tuple[Any, ...]:
        version = load_extra("librosa", "audio", "PatchEncoder").__version__
        frames = (self._patch, self._step, self._n_fft, self._hop_length, self._n_mels)
        options = (self._sample_rate, self._pooling, self._scale, *frames)
        return ("patches", self._encoder.fingerprint, *options, version)


def _read(source: Any, op: str) -> tuple[NDArray[np.float32], int]:
    """Decode a file: samples in [-1, 1] of shape (n, channels), and their rate."""
    library = load_extra("soundfile", "audio", op)
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:  # noqa: PTH123  # libsndfile names no cause; this does
            data = file.read()
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    else:
        raise TypeError(
            f"{op}: inputs must be paths, bytes, samples or (samples, rate); "
            f"got {type(source).__name__}"
        )
    try:
        samples, rate = library.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except library.LibsndfileError as error:
        raise Unreadable(f"a file that libsndfile cannot read: {error.error_string}") from error
    return samples, int(rate)
