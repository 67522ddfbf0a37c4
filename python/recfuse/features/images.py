"""Images as vectors: by a neural network in ONNX, or by their colours."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_int
from recfuse._named import named
from recfuse.features._extras import load_extra
from recfuse.features._media import MediaEncoder, Unreadable
from recfuse.serving import OnnxEncoder

__all__ = ["ColourHistogram", "ImageEncoder"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class ImageEncoder(MediaEncoder):
    r"""Vectors of images by a neural network, with the preparation it was trained with.

    An image becomes RGB, is resized, cut out of the middle, and normalised per channel to
    :math:`(x / 255 - mean) / std`: the array of shape (3, size, size) that ``Resize``,
    ``CenterCrop``, ``ToTensor`` and ``Normalize`` of torchvision [1]_ make of a Pillow image, bit
    by bit. The defaults are those of ImageNet classifiers in torchvision. For a model of timm, take
    ``resize=floor(size / crop_pct)``, ``interpolation``, ``mean`` and ``std`` from its
    ``pretrained_cfg``; for CLIP, ``resize=224, interpolation="bicubic"`` and its mean and std.

    Needs Pillow (extra ``recfuse[image]``).

    Parameters
    ----------
    encoder : OnnxEncoder
        Of a network with one input of shape (n, 3, size, size).
    size : int, default=224
        Side of the square that is cut out.
    resize : int or None, default=256
        The shorter side becomes so long, the longer one keeps the proportion, rounded down. None
        squeezes the whole image into the square.
    interpolation : {'nearest', 'bilinear', 'bicubic', 'lanczos'}, default='bilinear'
        Of Pillow, which smooths when it makes an image smaller.
    mean, std : sequence of 3 float
        Of ImageNet by default.
    batch_size : int, default=32
        Decoded images in memory at a time.
    exif : bool, default=False
        Turn a photo as its camera says it was held. Data sets are mostly trained on without.

    Notes
    -----
    `encode` takes paths, bytes of image files, Pillow images and uint8 arrays of shape
    (height, width, 3) or (height, width). Transparency is dropped.

    References
    ----------
    .. [1] https://docs.pytorch.org/vision/stable/transforms.html

    Examples
    --------
    >>> import numpy as np, onnx.parser
    >>> from recfuse import OnnxEncoder
    >>> from recfuse.features import ImageEncoder
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     mean (float[n, 3, 4, 4] x) => (float[n, 3, 1, 1] y) { y = GlobalAveragePool(x) }''')
    >>> network = OnnxEncoder(model.SerializeToString(), device="cpu")
    >>> encoder = ImageEncoder(network, size=4, resize=6, mean=(0, 0, 0), std=(1, 1, 1))
    >>> orange = np.full((20, 30, 3), [255, 153, 0], np.uint8)
    >>> vectors, present, failures = encoder.encode([orange, b"no image"], errors="skip")
    >>> vectors
    array([[1. , 0.6, 0. ],
           [0. , 0. , 0. ]], dtype=float32)
    >>> present
    array([ True, False])
    """

    _noun = "a readable image"

    @named("ImageEncoder")
    def __init__(
        self,
        encoder: OnnxEncoder,
        *,
        size: int = 224,
        resize: int | None = 256,
        interpolation: Interpolation = "bilinear",
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        batch_size: int = 32,
        exif: bool = False,
    ) -> None:
        if not isinstance(encoder, OnnxEncoder):
            raise TypeError(f"encoder must be an OnnxEncoder; got {type(encoder).__name__}")
        for name, value in (("size", size), ("batch_size", batch_size), ("resize", resize)):
            if value is not None and as_int(value, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise ValueError(
                "interpolation must be 'nearest', 'bilinear', 'bicubic' or 'lanczos'; "
                f"got {interpolation!r}"
            )
        channels = [np.asarray(x, np.float32).reshape(-1, 1, 1) for x in (mean, std)]
        if any(len(x) != 3 for x in channels) or not (channels[1] > 0).all():
            raise ValueError(
                f"mean must have 3 values, std 3 above 0; got {tuple(mean)} and {tuple(std)}"
            )
        self._encoder = encoder
        self._size, self._resize = size, resize
        self._interpolation = interpolation
        self._mean, self._std = channels
        self._batch_size = batch_size
        self._exif = exif

    def preprocess(self, image: Any) -> NDArray[np.float32]:
        """Return what the network is given for one image.

        Parameters
        ----------
        image : path, bytes, Pillow image or uint8 array

        Returns
        -------
        ndarray of shape (3, size, size), float32

        Raises
        ------
        ValueError, OSError
            If it cannot be read.
        """
        rgb = _rgb(image, exif=self._exif, op="ImageEncoder")
        library = load_extra("PIL.Image", "image", "ImageEncoder")
        how = library.Resampling[self._interpolation.upper()]
        size, (width, height) = self._size, rgb.size
        if self._resize is None:
            rgb = rgb.resize((size, size), how)
        else:
            short, long = sorted((width, height))
            longer = self._resize * long // short
            shape = (self._resize, longer) if width <= height else (longer, self._resize)
            rgb = _centre(rgb.resize(shape, how), size)
        pixels = np.asarray(rgb, np.uint8).transpose(2, 0, 1).astype(np.float32)
        return np.asarray((pixels / np.float32(255) - self._mean) / self._std)

    def _decode(self, source: Any) -> NDArray[Any]:
        return self.preprocess(source)

    def _vectors(self, decoded: list[NDArray[Any]]) -> NDArray[np.float32]:
        shape = (len(decoded), 3, self._size, self._size)
        batch = np.concatenate(decoded).reshape(shape) if decoded else np.empty(shape, np.float32)
        return np.asarray(self._encoder.encode(batch), np.float32)

    def _identity(self) -> tuple[Any, ...]:
        options = (self._size, self._resize, self._interpolation, self._exif)
        numbers = (self._mean.ravel().tolist(), self._std.ravel().tolist())
        version = load_extra("PIL", "image", "ImageEncoder").__version__
        return ("image", self._encoder.fingerprint, *options, *numbers, version)


class ColourHistogram(MediaEncoder):
    r"""Vectors of images by their colours, without any network.

    With the share :math:`h_b` of pixels in bin b of the RGB cube, the vector is
    :math:`x_b = \sqrt{h_b}`, of length one: the inner product of two is the Bhattacharyya
    coefficient [1]_ :math:`\sum_b \sqrt{h_b g_b}` of their histograms, 1 for equal ones and 0 where
    no colour is shared.

    Needs Pillow (extra ``recfuse[image]``).

    Parameters
    ----------
    bins : int, default=4
        Bins per channel, in [1, 256]: bins^3 columns.

    References
    ----------
    .. [1] A. Bhattacharyya, "On a measure of divergence between two statistical populations
       defined by their probability distributions", Bull. Calcutta Math. Soc. 35, 1943.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.features import ColourHistogram
    >>> red = np.full((8, 8, 3), [250, 0, 0], np.uint8)
    >>> half = red.copy()
    >>> half[:4] = 0
    >>> vectors = ColourHistogram(bins=2).encode([red, half]).vectors
    >>> vectors.shape, round(float(vectors[0] @ vectors[1]), 3)
    ((2, 8), 0.707)
    """

    _noun = "a readable image"
    _batch_size = 256

    @named("ColourHistogram")
    def __init__(self, bins: int = 4) -> None:
        if not 1 <= as_int(bins, "bins") <= 256:
            raise ValueError(f"bins must be in [1, 256]; got {bins}")
        self._bins = bins

    def _decode(self, source: Any) -> NDArray[Any]:
        pixels = np.asarray(_rgb(source, exif=False, op="ColourHistogram"), np.int64)
        places = pixels.reshape(-1, 3) * self._bins // 256
        codes = (places[:, 0] * self._bins + places[:, 1]) * self._bins + places[:, 2]
        counts = np.bincount(codes, minlength=self._bins**3)
        return np.sqrt(counts / len(codes)).astype(np.float32)

    def _vectors(self, decoded: list[NDArray[Any]]) -> NDArray[np.float32]:
        return np.array(decoded, np.float32).reshape(len(decoded), self._bins**3)

    def _identity(self) -> tuple[Any, ...]:
        return (
            "colours",
            self._bins,
            load_extra("PIL", "image", "ColourHistogram").__version__,
        )


def _rgb(source: Any, *, exif: bool, op: str) -> Any:
    """Return a loaded Pillow image in RGB."""
    library = load_extra("PIL.Image", "image", op)
    if isinstance(source, library.Image):
        image = source
    elif isinstance(source, np.ndarray):
        grey_or_rgb = source.ndim in (2, 3) and source.shape[2:] in ((), (3,))
        if source.dtype != np.uint8 or not grey_or_rgb:
            raise TypeError(
                f"{op}: inputs must be uint8 arrays of shape (height, width, 3) or "
                f"(height, width); got {source.dtype} {source.shape}"
            )
        if source.size == 0:
            raise Unreadable(f"an empty array of shape {source.shape}")
        image = library.fromarray(source)
    elif isinstance(source, (str, os.PathLike)):
        image = _opened(library, source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        image = _opened(library, io.BytesIO(source))
    else:
        raise TypeError(
            f"{op}: inputs must be paths, bytes, Pillow images or arrays; "
            f"got {type(source).__name__}"
        )
    if exif:
        image = load_extra("PIL.ImageOps", "image", op).exif_transpose(image)
    try:
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # as Pillow asks for; RGB drops the transparency
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(str(error)) from error


def _opened(library: Any, file: Any) -> Any:
    """Read a whole file, so that none stays open; one that is too large for Pillow is no image."""
    try:
        with library.open(file) as image:
            image.load()
            return image.copy()
    except FileNotFoundError:
        raise
    except library.UnidentifiedImageError as error:
        raise Unreadable("a file of no known format") from error
    except (
        OSError,
        SyntaxError,  # of a broken PNG
        ValueError,
        library.DecompressionBombError,
        library.DecompressionBombWarning,  # where warnings are errors
    ) as error:
        raise Unreadable(str(error)) from error


def _centre(image: Any, size: int) -> Any:
    """Cut a square out of the middle, as torchvision's CenterCrop does; black beyond the image."""
    left, top = (
        round((side - size) / 2) if side >= size else -((size - side) // 2) for side in image.size
    )
    return image.crop((left, top, left + size, top + size))
