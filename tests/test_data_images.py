"""Decoding every odd kind of image file, against numbers worked out without the code under test."""

import io
import os
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mobilenets.data import images
from mobilenets.data.images import ImageError, decode
from mobilenets.data.resizing import fit


def smooth(height=60, width=80, seed=0) -> np.ndarray:
    """A picture without hard edges, as photographs are at the scale of a pixel."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(picture: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(width, height, depth, colour, rows: bytes, chunks: bytes = b"") -> bytes:
    """A PNG made by hand: ``rows`` are the unfiltered rows, each with its leading zero."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def assert_rgb(image: np.ndarray) -> None:
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.writeable


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_colour(kind):
    picture = smooth()
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    image = decode(encoded(picture, kind, **options))
    assert_rgb(image)
    assert difference(image, picture) < (2 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("shape", [(300, 400), (512, 512), (700, 640)])
def test_a_central_crop_is_what_resizing_first_and_cropping_then_gives(shape):
    from PIL import Image

    from mobilenets.data.resizing import fit

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    image = np.array(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC))
    short = min(shape)
    scaled = Image.fromarray(image).resize(
        tuple(round(side * 256 / short) for side in shape[::-1]), Image.Resampling.BILINEAR
    )
    left, top = (round((side - 224) / 2) for side in scaled.size)
    expected = np.array(scaled.crop((left, top, left + 224, top + 224))).astype(int)
    measured = fit(image, 224, 0.875).astype(int)
    assert measured.shape == (224, 224, 3)
    # The crop begins at a whole pixel of the original, so it may stand off by a part of one.
    assert np.abs(measured - expected).mean() < 2
    assert np.abs(fit(image, 224).astype(int) - expected).mean() > 4


def test_progressive_jpeg_from_a_path(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(smooth(), "JPEG", quality=95, progressive=True))
    assert difference(decode(path), smooth()) < 3
    assert np.array_equal(decode(str(path)), decode(path.read_bytes()))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_grey_is_repeated(kind):
    grey = smooth()[..., 0]
    image = decode(encoded(grey, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert_rgb(image)
    assert np.array_equal(image[..., 0], image[..., 1])
    assert difference(image[..., 2], grey) < 2


def test_one_bit():
    bits = np.random.default_rng(1).random((9, 13)) < 0.5
    image = decode(encoded(Image.fromarray(bits), "PNG"))
    assert np.array_equal(image, np.repeat(bits[..., None] * np.uint8(255), 3, -1))


@pytest.mark.parametrize(("bits", "expected"), [(2, [0, 85, 170, 255]), (4, [0, 17, 34, 51])])
def test_grey_of_few_bits_is_scaled(bits, expected):
    packed = sum(value << (16 - bits * (place + 1)) for place, value in enumerate(range(4)))
    rows = b"\0" + packed.to_bytes(2, "big")[: 1 if bits == 2 else 2]
    assert decode(png(4, 1, bits, 0, rows))[0, :, 0].tolist() == expected


def test_16_bit_grey_is_scaled_and_not_clipped():
    values = np.random.default_rng(2).integers(0, 65536, (20, 30)).astype(np.uint16)
    values[0, :3] = (0, 257, 65535)
    image = decode(cv2.imencode(".png", values)[1].tobytes())
    assert np.array_equal(image[..., 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(image[..., 0], image[..., 2])


def test_16_bit_colour_with_and_without_alpha():
    values = np.random.default_rng(3).integers(0, 65536, (20, 30, 4)).astype(np.uint16)
    colour = values[..., 2::-1] / 257  # OpenCV writes BGR
    image = decode(cv2.imencode(".png", values[..., :3])[1].tobytes())
    assert np.abs(image - colour).max() <= 1
    alpha = values[..., 3:] / 65535
    image = decode(cv2.imencode(".png", values)[1].tobytes())
    assert np.abs(image - (colour * alpha + 255 * (1 - alpha))).max() <= 2.5


def test_16_bit_grey_with_a_transparent_value():
    rows = b"\0" + struct.pack(">HH", 4096, 8192)
    image = decode(png(2, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 4096))))
    assert image[0, :, 0].tolist() == [255, round(8192 / 257)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_on_white(kind):
    colour = smooth()
    alpha = np.linspace(0, 255, colour.shape[1]).astype(np.uint8)[None, :, None].repeat(colour.shape[0], 0)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = decode(encoded(np.concatenate([colour, alpha], -1), kind, **options))
    share = alpha / 255
    assert np.abs(image - (colour * share + 255 * (1 - share))).max() <= 1.5


def test_grey_with_alpha():
    values = np.array([[[100, 255], [100, 0], [100, 128]]], np.uint8)
    image = decode(encoded(Image.fromarray(values, "LA"), "PNG"))
    assert image[0, :, 0].tolist() == [100, 255, pytest.approx(100 * 128 / 255 + 127, abs=1)]


def test_palette():
    picture = Image.fromarray(smooth()).quantize(256)
    expected = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)[np.array(picture)]
    for kind in ("PNG", "GIF", "BMP"):
        assert np.array_equal(decode(encoded(picture, kind)), expected), kind


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image = decode(encoded(picture, kind, transparency=1))
    assert image[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


def test_palette_with_half_transparent_entries():
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 200, 100, 0])
    image = decode(encoded(picture, "PNG", transparency=bytes((255, 51))))
    assert image[0].tolist() == [[0, 0, 0], [244, 224, 204]]  # a fifth of the colour, four fifths of white


def test_cmyk_jpeg():
    inks = np.broadcast_to(np.array([200, 40, 0, 60], np.uint8), (64, 64, 4))
    data = encoded(Image.fromarray(np.ascontiguousarray(inks), "CMYK"), "JPEG", quality=100)
    expected = [(255 - ink) * (255 - 60) / 255 for ink in (200, 40, 0)]
    assert np.abs(decode(data) - expected).max() <= 2
    assert decode(data, 16).shape == (16, 16, 3)
    assert np.abs(decode(data, 16) - expected).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")] * 100
    image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert image.shape == (30, 40, 3)
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 2


# How the stored picture has to be turned, by the definition of the tag (EXIF 2.3, 4.6.4 A): where row 0 and
# column 0 are to be seen.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(kind, orientation):
    stored = smooth(240, 320)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(stored, kind, exif=exif, **options)
    expected = UPRIGHT[orientation](stored)
    assert difference(decode(data), expected) < 2
    assert images.dimensions(data) == expected.shape[1::-1]
    # At reduced scale as well.
    small = decode(data, 60)
    assert min(small.shape[:2]) == (60 if kind == "JPEG" else 120)
    assert difference(small, cv2.resize(expected, small.shape[1::-1], interpolation=cv2.INTER_AREA)) < 2
    if kind == "JPEG":
        reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert difference(decode(data), reference) < 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_dimensions_of_a_file_larger_than_its_header(tmp_path, kind):
    path = tmp_path / "noise"
    pixels = np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)
    path.write_bytes(encoded(pixels, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert images.dimensions(path) == (700, 500)
    with pytest.raises(ImageError, match="no such file"):
        images.dimensions(tmp_path / "absent")


def test_exif_behind_the_pixels_of_a_png_does_not_count():
    """Who reads the header alone would not know of it, and take another size for the picture's."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = encoded(smooth(), "PNG"), encoded(smooth(), "PNG", exif=exif)
    start = turned.index(b"eXIf") - 4
    chunk = turned[start : start + 12 + int.from_bytes(turned[start : start + 4], "big")]
    late = plain[:-12] + chunk + plain[-12:]
    assert images.dimensions(late) == images.dimensions(plain) == images.dimensions(turned)[::-1]
    np.testing.assert_array_equal(decode(late), decode(plain))


def test_damaged_exif_does_not_matter():
    data = encoded(smooth(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert difference(decode(data), smooth()) < 8


@pytest.mark.parametrize("shape", [(480, 640), (701, 503), (487, 1203)])
@pytest.mark.parametrize("size", [20, 50, 100, 160, 224, 480, 1000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_reduced_decoding_is_close_to_the_whole(kind, size, shape):
    data = encoded(smooth(*shape), kind, **({"quality": 95} if kind == "JPEG" else {}))
    whole, small = decode(data), decode(data, size)
    assert min(size, *shape) <= min(small.shape[:2]) <= min(shape)
    assert min(small.shape[:2]) < 4 * size
    expected = fit(whole, size)
    slope = np.abs(np.diff(expected.astype(int), axis=0)).mean()  # what a shift by one pixel would change
    assert difference(fit(small, size), expected) < 1 + 0.6 * slope


def test_fit_shrinks_by_area_and_crops_the_centre():
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 4:8] = np.random.default_rng(4).integers(0, 256, (4, 4, 3))
    blocks = image[:, 4:8].reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(fit(image, 2) - blocks).max() <= 0.5
    third = fit(smooth(300, 400), 90)
    reference = cv2.resize(smooth(300, 400)[:, 50:350], (90, 90), interpolation=cv2.INTER_AREA)
    assert np.array_equal(third, reference)


def test_fit_enlarges_and_keeps_what_fits():
    image = smooth(30, 30)
    assert fit(image, 90).shape == (90, 90, 3)
    assert difference(fit(fit(image, 90), 30), image) < 3
    assert np.array_equal(fit(image, 30), image)
    assert fit(image, 30) is not image
    assert fit(smooth(1, 500), 32).shape == (32, 32, 3)


SIGNED = {
    "jpg": encoded(smooth(), "JPEG"),
    "progressive": encoded(smooth(), "JPEG", progressive=True),
    "png": encoded(smooth(), "PNG"),
    "gif": encoded(smooth(), "GIF"),
    "bmp": encoded(smooth(), "BMP"),
    "webp": encoded(smooth(), "WEBP"),
}


@pytest.mark.parametrize("kind", SIGNED)
def test_truncated_files(kind):
    data = SIGNED[kind]
    for end in (len(data) // 3, len(data) // 2, len(data) - 30):
        for use in (images.verify, decode, lambda data: decode(data, 20)):
            with pytest.raises(ImageError, match=r"^truncated$"):
                use(data[:end])


def failure(use, data: bytes) -> str | None:
    try:
        use(data)
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("kind", SIGNED)
def test_damage_never_raises_anything_else(kind):
    rng = np.random.default_rng(5)
    whole = np.frombuffer(SIGNED[kind], np.uint8)
    for _ in range(120):
        data = whole.copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        data = data[: rng.integers(1, 2 * len(data))].tobytes()
        reason = failure(images.verify, data)
        if reason is None:  # what passes must be usable later on
            assert_rgb(decode(data))
            assert_rgb(decode(data, 20))
        else:
            assert 0 < len(reason) < 120
            assert "\n" not in reason


def test_jpeg_that_ends_in_zeros():
    data = SIGNED["jpg"]
    with pytest.raises(ImageError, match=r"^truncated$"):
        decode(data[: len(data) // 2] + bytes(5000))
    assert difference(decode(data + bytes(5000)), decode(data)) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty file$"),
        (b"hello, I am a text", "^not an image$"),
        (bytes(3000), "^not an image .only zero bytes.$"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "^not an image$"),
        (b"II*\0" + bytes(100) + b"tiff", "^not an image$"),
        (b"\xff\xd8\xff", "."),
        (b"BM", "."),
        (b"RIFF\0\0\0\0WEBP", "."),
    ],
)
def test_not_an_image(tmp_path, content, reason):
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageError, match=reason):
            decode(source)


def _patched_jpeg(width: int, height: int) -> bytes:
    data = bytearray(SIGNED["jpg"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "png": png(60000, 60000, 8, 2, b"\0"),
    "jpg": _patched_jpeg(60000, 60000),
    "gif": b"GIF89a" + struct.pack("<HH", 60000, 60000) + SIGNED["gif"][10:],
    "bmp": SIGNED["bmp"][:18] + struct.pack("<ii", 60000, 60000) + SIGNED["bmp"][26:],
    "webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (59999).to_bytes(3, "little") * 2 + b"VP8 \0\0\0\0",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_by_their_header(kind):
    for use in (decode, images.verify, images.dimensions, lambda data: decode(data, 32)):
        with pytest.raises(ImageError, match=r"^too large: 60000x60000 pixels$"):
            use(BOMBS[kind])


def test_a_gif_whose_frame_is_larger_than_its_screen():
    data = SIGNED["gif"]
    at = data.index(b"," + struct.pack("<HHHH", 0, 0, 80, 60))  # the frame's left, top, width, height
    data = data[: at + 5] + struct.pack("<HH", 60000, 60000) + data[at + 9 :]
    with pytest.raises(ImageError, match=r"^too large: 3600000000 pixels$"):
        decode(data)


def test_a_png_whose_text_unpacks_without_end():
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))
    data = png(1, 1, 8, 0, b"\0\0", text)
    assert len(data) < 1_000_000
    with pytest.raises(ImageError):
        decode(data)


def test_a_large_picture_is_fine():
    data = encoded(Image.new("1", (9000, 9000)), "PNG")  # 81 megapixels in 10 KB
    assert decode(data, 64).shape == (128, 128, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_odd_paths(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(300_000_000)
    for name, reason in {
        "pipe.jpg": "not a regular file",
        "folder.jpg": "a folder, not a file",
        "huge.jpg": "too large: 300 MB",
        "absent.jpg": "no such file",
    }.items():
        with pytest.raises(ImageError, match=f"^{reason}$"):
            decode(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(SIGNED["png"])
    path.chmod(0)
    with pytest.raises(ImageError, match=r"^no permission to read it$"):
        decode(path)


def test_warnings_of_pillow_stay_inside_and_filters_come_back():
    odd = encoded(smooth(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\0\0\0\x08\0\0\0")
    failures = []

    def work():
        try:
            for _ in range(30):
                decode(odd)
                with pytest.raises(ImageError):
                    decode(BOMBS["png"])
        except BaseException as error:
            failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert warnings.filters == before
    assert not failures
