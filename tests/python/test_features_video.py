from __future__ import annotations

import io

import numpy as np
import pytest

from recfuse.features import ColourHistogram, VideoEncoder, encode_all, pool_sequences

pytest.importorskip("PIL")
av = pytest.importorskip("av")

RED, BLUE, GREEN = [220, 20, 20], [20, 20, 220], [20, 220, 20]


def frame(colour):
    return np.full((32, 32, 3), colour, np.uint8)


def film(colours, rate=10, kind="mp4"):
    """Bytes of a video with one frame per colour."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for colour in colours:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(colour), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    ("every", "max_frames", "seen"),
    [
        (1, None, [RED, BLUE, BLUE, GREEN]),  # at 0, 1, 2 and 3 seconds
        (0.5, None, [RED] * 2 + [BLUE] * 4 + [GREEN]),
        (2, None, [RED, BLUE]),
        (0.1, 12, [RED] * 10 + [BLUE] * 2),
        (60, None, [RED]),
    ],
)
@pytest.mark.parametrize("pooling", ["mean", ["max", "std"]])
def test_frames_are_looked_at_in_time(every, max_frames, seen, pooling):
    data = film([RED] * 10 + [BLUE] * 20 + [GREEN] * 5)
    colours = ColourHistogram(2)  # coarse enough for what compression does
    encoder = VideoEncoder(colours, pooling, every=every, max_frames=max_frames)
    got, present, _ = encoder.encode([data])
    frames = colours.encode([frame(colour) for colour in seen]).vectors
    np.testing.assert_array_equal(got, pool_sequences(frames, [len(seen)], pooling=pooling))
    assert present.all()
    listed = encoder.encode([[frame(colour) for colour in seen]]).vectors
    np.testing.assert_array_equal(listed, got)


def test_files_and_what_is_none(tmp_path):
    (tmp_path / "预告.mp4").write_bytes(film([BLUE] * 3))
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    files = [
        tmp_path / "预告.mp4",
        tmp_path / "bad.mp4",
        tmp_path / "absent.mp4",
        [],
        [b"no image"],
    ]
    encoder = VideoEncoder(ColourHistogram(2))
    vectors, present, failures = encoder.encode(files, errors="skip")
    assert present.tolist() == [True, False, False, False, False]
    assert vectors[0].tolist() == ColourHistogram(2).encode([frame(BLUE)]).vectors[0].tolist()
    assert "bad.mp4" in failures[1] and "FFmpeg" in failures[1]
    assert "absent.mp4" in failures[2] and "without frames" in failures[3]
    with pytest.raises(ValueError, match=r"VideoEncoder: inputs\[1\] \(.*bad.mp4'\) must be a rea"):
        encoder.encode(files)
    assert encoder.encode([]).vectors.shape == (0, 8)


def test_none_is_a_video_or_a_frame_that_there_is_not():
    encoder = VideoEncoder(ColourHistogram(2))
    vectors, present, failures = encoder.encode([None, [frame(RED), None], [frame(RED)], None])
    assert present.tolist() == [False, True, True, False]
    assert failures == {}
    np.testing.assert_array_equal(vectors[1], vectors[2])  # not half of it
    assert not vectors[[0, 3]].any()
    assert encoder.encode([None]).vectors.shape == (1, 8)
    with pytest.raises(ValueError, match=r"inputs\[0\] must be a readable video; got one without"):
        encoder.encode([[None]])


def test_videos_are_kept_like_other_inputs(tmp_path, monkeypatch):
    videos, run = [film([RED] * 3), [frame(RED), frame(BLUE)]], {"cache": tmp_path / "vectors"}
    encoders = {"trailer": VideoEncoder(ColourHistogram(2))}
    first = encode_all({"trailer": videos}, encoders, **run)
    monkeypatch.setattr(VideoEncoder, "_decode", None)  # would fail
    second = encode_all({"trailer": videos[::-1]}, encoders, **run)
    np.testing.assert_array_equal(second.vectors["trailer"], first.vectors["trailer"][::-1])


def test_wrong_options():
    with pytest.raises(TypeError, match="VideoEncoder: images must be an encoder of images; got"):
        VideoEncoder("network.onnx")
    with pytest.raises(ValueError, match="every must be above 0; got 0"):
        VideoEncoder(ColourHistogram(), every=0)
    with pytest.raises(ValueError, match="max_frames must be at least 1; got 0"):
        VideoEncoder(ColourHistogram(), max_frames=0)
    with pytest.raises(ValueError, match=r"pooling must be of .*; got 'median'"):
        VideoEncoder(ColourHistogram(), "median")
    with pytest.raises(TypeError, match="inputs must be paths, bytes or lists of frames; got int"):
        VideoEncoder(ColourHistogram()).encode([3])
