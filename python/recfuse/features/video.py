"""Videos as vectors: frames at regular times by an encoder of images, pooled."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_float, as_int
from recfuse._named import named
from recfuse.features._extras import load_extra
from recfuse.features._kinds import Pooling
from recfuse.features._media import MediaEncoder, Unreadable
from recfuse.features.images import ColourHistogram, ImageEncoder
from recfuse.features.pooling import pool_sequences

__all__ = ["VideoEncoder"]


class VideoEncoder(MediaEncoder):
    """Vectors of videos: those of their frames, pooled over time.

    Files are decoded by PyAV (extra ``recfuse[video]``), which is FFmpeg.

    Parameters
    ----------
    images : ImageEncoder or ColourHistogram
        Encodes the frames.
    pooling : {'mean', 'max', 'std', 'sum'} or a sequence of them, default='mean'
        See `pool_sequences`, which also takes weights, for frames that you encode yourself.
    every : float, default=1.0
        Seconds from one frame that is looked at to the next; above 0.
    max_frames : int, optional
        Look at no more than so many, from the beginning.

    Notes
    -----
    `encode` takes paths and bytes of video files, animated GIFs included, and lists of frames: what
    `images` takes, all of which are looked at. Only one batch of frames is in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.features import ColourHistogram, VideoEncoder
    >>> red, blue = (np.full((4, 4, 3), c, np.uint8) for c in ([255, 0, 0], [0, 0, 255]))
    >>> vectors = VideoEncoder(ColourHistogram(2)).encode([[red, red, red, blue]]).vectors
    >>> vectors
    array([[0.  , 0.25, 0.  , 0.  , 0.75, 0.  , 0.  , 0.  ]], dtype=float32)
    """

    _noun = "a readable video"
    _batch_size = 1

    @named("VideoEncoder")
    def __init__(
        self,
        images: ImageEncoder | ColourHistogram,
        pooling: Pooling | Sequence[Pooling] = "mean",
        *,
        every: float = 1.0,
        max_frames: int | None = None,
    ) -> None:
        if not isinstance(images, (ImageEncoder, ColourHistogram)):
            raise TypeError(f"images must be an encoder of images; got {type(images).__name__}")
        if not 0 < as_float(every, "every") < np.inf:
            raise ValueError(f"every must be above 0; got {every}")
        if max_frames is not None and as_int(max_frames, "max_frames") < 1:
            raise ValueError(f"max_frames must be at least 1; got {max_frames}")
        poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        pool_sequences(np.ones((1, 1)), [1], pooling=poolings)  # knows which there are
        self._images = images
        self._pooling: tuple[Pooling, ...] = poolings
        self._every = float(every)
        self._max_frames = max_frames

    def content(self, source: Any) -> bytes:
        """Return the bytes that a video is made of: of its file, or of its frames."""
        if not isinstance(source, (list, tuple)):
            return super().content(source)
        frames = [self._images.content(frame) for frame in source]
        return b"".join(len(frame).to_bytes(8, "little") + frame for frame in frames)

    def _decode(self, source: Any) -> NDArray[Any]:
        """Return the vector: whole videos are never in memory."""
        frames = source if isinstance(source, (list, tuple)) else self._frames(source)
        try:
            vectors, present, _ = self._images.encode(frames)
        except Unreadable:
            raise
        except ValueError as error:  # a frame of a list
            raise Unreadable(str(error)) from error
        vectors = vectors[present]  # a frame may be None
        if len(vectors) == 0:
            raise Unreadable("one without frames")
        return pool_sequences(vectors, [len(vectors)], pooling=self._pooling).ravel()

    def _vectors(self, decoded: list[NDArray[Any]]) -> NDArray[np.float32]:
        if decoded:
            return np.array(decoded, np.float32)
        dim = self._images.encode([]).vectors.shape[1]
        return np.empty((0, dim * len(self._pooling)), np.float32)

    def _frames(self, source: Any) -> Iterator[Any]:
        """Yield Pillow images: the first frame at or after every multiple of `every` seconds."""
        if isinstance(source, (str, os.PathLike)):
            file: Any = open(source, "rb")  # noqa: PTH123, SIM115  # closed below
        elif isinstance(source, (bytes, bytearray, memoryview)):
            file = io.BytesIO(source)
        else:
            raise TypeError(
                "VideoEncoder: inputs must be paths, bytes or lists of frames; "
                f"got {type(source).__name__}"
            )
        library = load_extra("av", "video", "VideoEncoder")
        with file:
            try:
                with library.open(file) as container:
                    if not container.streams.video:
                        raise Unreadable("a file without a video")
                    yield from self._sampled(container)
            except library.FFmpegError as error:
                raise Unreadable(f"a file that FFmpeg cannot read: {error}") from error

    def _sampled(self, container: Any) -> Iterator[Any]:
        taken, due = 0, -np.inf
        for frame in container.decode(video=0):
            time = frame.time or 0.0
            if time >= due:
                yield frame.to_image()
                taken += 1
                if taken == self._max_frames:
                    return
                # Time stamps are rounded: a tenth of a millisecond early is in time.
                due = (np.floor(time / self._every + 1e-6) + 1) * self._every - 1e-4

    def _identity(self) -> tuple[Any, ...]:
        version = load_extra("av", "video", "VideoEncoder").__version__
        options = (self._pooling, self._every, self._max_frames)
        return ("video", self._images.fingerprint, *options, version)
