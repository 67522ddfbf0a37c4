from __future__ import annotations

import io

import numpy as np
import pytest

from recfuse.features import ColourHistogram, ImageEncoder

image_library = pytest.importorskip("PIL.Image")
tiny = pytest.importorskip("tiny_onnx", exc_type=ImportError)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(size):
    """Mean of every channel, and its maximum: (n, 3, size, size) -> (n, 6)."""
    graph = f"""channels (float[n, 3, {size}, {size}] x) => (float[n, 6, 1, 1] y)
        {{ a = GlobalAveragePool(x) b = GlobalMaxPool(x) y = Concat<axis = 1>(a, b) }}"""
    return tiny.on_cpu(tiny.model(graph))


def photo(rng, height, width):
    """Smooth colours with an edge, so that a shift of a pixel is seen."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / 9 + c) + 30 * np.cos(y / (5 + c)) for c in range(3)]
    pixels = np.clip(np.stack(waves, axis=2) + rng.integers(-9, 9, (height, width, 3)), 0, 255)
    pixels[height // 3 :, width // 2 :] //= 2
    return pixels.astype(np.uint8)


def triangle_weights(old, new):
    """Weights of a smoothing bilinear filter, (new, old), in float64."""
    scale = max(old / new, 1)
    centre = (np.arange(new)[:, None] + 0.5) * old / new
    weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centre) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(300, 200), (200, 333), (40, 57), (64, 64), (31, 500)])
@pytest.mark.parametrize(("size", "resize"), [(32, 40), (33, 33), (24, None), (48, 40)])
def test_preparation_matches_float64(rng, shape, size, resize):
    pixels = photo(rng, *shape)
    got = ImageEncoder(network(size), size=size, resize=resize).preprocess(pixels)
    assert (got.shape, got.dtype) == ((3, size, size), np.float32)
    height, width = shape
    if resize is None:
        new = (size, size)
    else:
        new = tuple(int(resize * side / min(shape)) for side in shape)
    resized = triangle_weights(height, new[0]) @ pixels.transpose(2, 0, 1).astype(np.float64)
    resized = resized @ triangle_weights(width, new[1]).T
    expected = np.zeros((3, size, size))
    for y, x in np.ndindex(size, size):
        # Where the middle lies: half to even, and to the upper left where the image is smaller.
        row = y + (round((new[0] - size) / 2) if new[0] >= size else -((size - new[0]) // 2))
        column = x + (round((new[1] - size) / 2) if new[1] >= size else -((size - new[1]) // 2))
        if 0 <= row < new[0] and 0 <= column < new[1]:
            expected[:, y, x] = resized[:, row, column]
    shades = got * np.reshape(STD, (3, 1, 1)) * 255 + np.reshape(MEAN, (3, 1, 1)) * 255
    # Pillow rounds to whole shades after each of the two passes.
    assert np.abs(shades - expected).max() < 1.01
    assert np.abs(shades - expected).mean() < 0.35


@pytest.mark.parametrize("shape", [(300, 200), (200, 333), (57, 57), (224, 224), (100, 30)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_preparation_is_that_of_torchvision(rng, shape, interpolation):
    transforms = pytest.importorskip("torchvision.transforms")
    modes = transforms.InterpolationMode
    image = image_library.fromarray(photo(rng, *shape))
    for size, resize in [(224, 256), (48, 40), (32, None)]:
        theirs = transforms.Compose(
            [
                transforms.Resize(resize or (size, size), modes(interpolation)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        encoder = ImageEncoder(network(size), size=size, resize=resize, interpolation=interpolation)
        np.testing.assert_array_equal(encoder.preprocess(image), theirs(image).numpy())


def test_every_kind_of_source_gives_the_same(rng, tmp_path):
    pixels = photo(rng, 50, 40)
    image = image_library.fromarray(pixels)
    image.save(tmp_path / "封面.png")
    data = (tmp_path / "封面.png").read_bytes()
    sources = [tmp_path / "封面.png", str(tmp_path / "封面.png"), data, image, pixels]
    encoder = ImageEncoder(network(16), size=16, resize=20, batch_size=2)
    vectors, present, failures = encoder.encode(iter(sources))
    assert (vectors.shape, vectors.dtype) == ((5, 6), np.float32)
    assert present.all() and failures == {}
    np.testing.assert_array_equal(vectors, np.repeat(vectors[:1], 5, axis=0))
    own = encoder.preprocess(image)
    np.testing.assert_allclose(vectors[0, :3], own.mean(axis=(1, 2), dtype=np.float64), rtol=1e-4)
    np.testing.assert_array_equal(vectors[0, 3:], own.max(axis=(1, 2)))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(rng, mode):
    image = image_library.fromarray(photo(rng, 20, 20)).convert("L" if mode == "I;16" else mode)
    if mode == "P":
        image.info["transparency"] = bytes(range(256))
    encoder = ImageEncoder(network(8), size=8, resize=8)
    assert encoder.preprocess(image.convert(mode)).shape == (3, 8, 8)


def test_a_grey_image_has_three_equal_channels(rng):
    grey = photo(rng, 20, 20)[:, :, 0]
    encoder = ImageEncoder(network(8), size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))
    got = encoder.preprocess(grey)
    np.testing.assert_array_equal(got[0], got[2])


def test_a_photo_is_turned_as_its_camera_says(rng):
    image = image_library.fromarray(photo(rng, 20, 30))
    exif = image_library.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    turned = image.transpose(image_library.Transpose.ROTATE_270)
    for asked, expected in ((True, turned), (False, image)):
        encoder = ImageEncoder(network(16), size=16, resize=16, exif=asked)
        np.testing.assert_array_equal(
            encoder.preprocess(file.getvalue()), encoder.preprocess(expected)
        )


def broken(rng, tmp_path):
    file = io.BytesIO()
    image_library.fromarray(photo(rng, 64, 64)).save(file, "PNG")
    whole = file.getvalue()
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    return [whole, whole[: len(whole) // 2], text, tmp_path / "absent.png", b"", whole]


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_bad_files_are_skipped_with_their_names(rng, tmp_path, batch_size):
    sources = broken(rng, tmp_path)
    encoder = ImageEncoder(network(8), size=8, resize=8, batch_size=batch_size)
    vectors, present, failures = encoder.encode(sources, errors="skip")
    assert present.tolist() == [True, False, False, False, False, True]
    assert sorted(failures) == [1, 2, 3, 4]
    assert "notes.jpg" in failures[2] and "no known format" in failures[2]
    assert "absent.png" in failures[3]
    assert not vectors[1:5].any()
    np.testing.assert_array_equal(vectors[0], vectors[5])


def test_bad_files_are_errors_with_their_names(rng, tmp_path):
    sources = broken(rng, tmp_path)
    encoder = ImageEncoder(network(8), size=8, resize=8)
    with pytest.raises(
        ValueError, match=r"ImageEncoder: inputs\[0\] \(.*notes.jpg'\) must be a re"
    ):
        encoder.encode(sources[2:])
    with pytest.raises(ValueError, match=r"inputs\[1\] must be a readable image; got"):
        encoder.encode(sources[:2])


def test_an_image_larger_than_pillow_allows_is_skipped(rng, monkeypatch):
    monkeypatch.setattr(image_library, "MAX_IMAGE_PIXELS", 1000)
    image = image_library.fromarray(photo(rng, 64, 64))
    file = io.BytesIO()
    image.save(file, "PNG")
    _, present, failures = ColourHistogram().encode([file.getvalue()], errors="skip")
    assert not present.any() and "4096 pixels" in failures[0]


def test_no_images():
    vectors, present, failures = ImageEncoder(network(8), size=8).encode([])
    assert (vectors.shape, present.shape, failures) == ((0, 6), (0,), {})
    assert ColourHistogram(2).encode([]).vectors.shape == (0, 8)
    assert ColourHistogram(2).encode([b""], errors="skip").vectors.tolist() == [[0] * 8]


def test_colours_are_shares_of_bins(rng):
    pixels = photo(rng, 30, 20)
    got = ColourHistogram(bins=3).encode([pixels]).vectors[0]
    expected = np.zeros((3, 3, 3))
    for pixel in pixels.reshape(-1, 3).tolist():
        expected[tuple(int(shade * 3 / 256) for shade in pixel)] += 1 / 600
    np.testing.assert_allclose(got, np.sqrt(expected).ravel(), rtol=1e-6)
    assert np.linalg.norm(got) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1; got 0"),
        ({"interpolation": "cubic"}, "interpolation must be .*; got 'cubic'"),
        ({"mean": (0, 0)}, "mean must have 3 values, std 3 above 0"),
        ({"std": (1, 0, 1)}, "mean must have 3 values, std 3 above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=f"ImageEncoder: {message}"):
        ImageEncoder(network(8), **options)


def test_wrong_inputs():
    with pytest.raises(TypeError, match="ImageEncoder: encoder must be an OnnxEncoder; got str"):
        ImageEncoder("model.onnx")
    with pytest.raises(ValueError, match=r"ColourHistogram: bins must be in \[1, 256\]; got 0"):
        ColourHistogram(0)
    encoder = ColourHistogram()
    with pytest.raises(TypeError, match="inputs must be a list; got one str"):
        encoder.encode("cover.png")
    with pytest.raises(TypeError, match="inputs must be paths, bytes, Pillow images or arrays"):
        encoder.encode([3])
    with pytest.raises(TypeError, match=r"inputs must be uint8 arrays of shape .*; got float64"):
        encoder.encode([np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match="errors must be 'raise' or 'skip'; got 'ignore'"):
        encoder.encode([], errors="ignore")
