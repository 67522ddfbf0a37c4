"""Features of sound, frame by frame: MFCC and chroma."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_int
from recfuse._named import named
from recfuse.features._extras import load_extra

__all__ = ["as_sound", "check_frames", "chroma", "long_enough", "mfcc"]

Float32 = NDArray[np.float32]


@named("mfcc")
def mfcc(
    samples: ArrayLike,
    sample_rate: int = 22050,
    *,
    n_mfcc: int = 20,
    n_mels: int = 128,
    n_fft: int = 2048,
    hop_length: int = 512,
) -> Float32:
    r"""Return the mel-frequency cepstral coefficients [1]_ of a sound, frame by frame.

    With the power spectrum :math:`P_t` of frames under a periodic Hann window and the triangular
    mel filters :math:`M` of Slaney's Auditory Toolbox, each of area 1:

    .. math:: L_{tm} = \max(10 \log_{10} \max(10^{-10}, \textstyle\sum_f M_{mf} P_{tf}),
              \max L - 80), \quad c_{tk} = \sqrt{\tfrac{2}{n} (1 - \tfrac{[k = 0]}{2})}
              \sum_{m=0}^{n-1} L_{tm} \cos\frac{\pi k (2 m + 1)}{2 n}

    the orthonormal DCT-II of the mel spectrum in decibels, by librosa (extra ``recfuse[audio]``).

    Parameters
    ----------
    samples : array-like of shape (n_samples,)
        In [-1, 1]; not empty. The ends are padded with half a frame of silence.
    sample_rate : int, default=22050
        In hertz.
    n_mfcc, n_mels : int, default=20 and 128
        Coefficients, at most as many as mel filters.
    n_fft, hop_length : int, default=2048 and 512
        Samples per frame, and from one frame to the next.

    Returns
    -------
    ndarray of shape (1 + n_samples // hop_length, n_mfcc), float32

    Raises
    ------
    ValueError
        If `samples` is empty, not finite or has another shape, or an option is out of its range.
    ImportError
        Where librosa is missing.

    References
    ----------
    .. [1] S. Davis, P. Mermelstein, "Comparison of Parametric Representations for Monosyllabic
       Word Recognition in Continuously Spoken Sentences", IEEE Trans. ASSP 28(4), 1980.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.features import mfcc
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    >>> mfcc(tone).shape
    (44, 20)
    """
    sound = as_sound(samples, "samples")
    if not 1 <= as_int(n_mfcc, "n_mfcc") <= as_int(n_mels, "n_mels"):
        raise ValueError(f"n_mfcc must be in [1, n_mels = {n_mels}]; got {n_mfcc}")
    check_frames(sample_rate, n_fft, hop_length)
    features = load_extra("librosa.feature", "audio", "mfcc")
    frames = features.mfcc(
        y=long_enough(sound, n_fft),
        sr=sample_rate,
        n_mfcc=n_mfcc,
        n_mels=n_mels,
        n_fft=n_fft,
        hop_length=hop_length,
    )
    return np.ascontiguousarray(frames.T[: 1 + len(sound) // hop_length], np.float32)


@named("chroma")
def chroma(
    samples: ArrayLike,
    sample_rate: int = 22050,
    *,
    n_fft: int = 2048,
    hop_length: int = 512,
    tuning: float | None = 0.0,
) -> Float32:
    r"""Return how strong each of the 12 pitch classes is, frame by frame [1]_.

    The power of the bin of frequency f goes to the pitch classes around :math:`12 \log_2(f / f_C)`,
    by a Gaussian as wide as the bin, and less where f is far from the middle octaves; every frame
    is divided by its largest value. By librosa's ``chroma_stft`` (extra ``recfuse[audio]``).

    Parameters
    ----------
    samples : array-like of shape (n_samples,)
        In [-1, 1]; not empty.
    sample_rate : int, default=22050
        In hertz.
    n_fft, hop_length : int, default=2048 and 512
        Samples per frame, and from one frame to the next.
    tuning : float or None, default=0.0
        How far the instrument is from A = 440 Hz, in semitones; None estimates it.

    Returns
    -------
    ndarray of shape (1 + n_samples // hop_length, 12), float32
        C, C#, D, ..., B; in [0, 1]. Silence is zero.

    Raises
    ------
    ValueError, ImportError
        As `mfcc`.

    References
    ----------
    .. [1] D. Ellis, "Chroma feature analysis and synthesis", 2007,
       https://www.ee.columbia.edu/~dpwe/resources/matlab/chroma-ansyn/

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.features import chroma
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    >>> int(chroma(tone).mean(axis=0).argmax())  # A
    9
    """
    sound = as_sound(samples, "samples")
    check_frames(sample_rate, n_fft, hop_length)
    features = load_extra("librosa.feature", "audio", "chroma")
    frames = features.chroma_stft(
        y=long_enough(sound, n_fft),
        sr=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        tuning=tuning,
    )
    return np.ascontiguousarray(frames.T[: 1 + len(sound) // hop_length], np.float32)


def as_sound(samples: Any, name: str) -> Float32:
    array = np.asarray(samples)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be floats in [-1, 1]; got dtype {array.dtype}")
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} must have shape (n,), n above 0; got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; got NaN or infinity")
    return array.astype(np.float32, copy=False)


def long_enough(sound: Float32, least: int) -> Float32:
    """Add silence behind a sound that is shorter than a frame."""
    return np.pad(sound, (0, max(0, least - len(sound))))


def check_frames(sample_rate: int, n_fft: int, hop_length: int) -> None:
    for name, value in (
        ("sample_rate", sample_rate),
        ("n_fft", n_fft),
        ("hop_length", hop_length),
    ):
        if as_int(value, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
