"""Image files to arrays: RGB, 8 bits, upright, whatever was stored. Files are not trusted."""

import contextlib
import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# A header may claim any size, and a picture costs 4 bytes a pixel while it is decoded: 400 MB at this limit.
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20
_HEADER = 2**18  # bytes that nearly always hold a file's header, an embedded thumbnail included

# Pictures above this many pixels (after JPEG's own reduction) are decoded one at a time, so that a folder of
# huge scans does not take the memory of one such picture per core.
_LARGE = 24_000_000
_one_large = threading.Lock()

# Only these five are read, recognized by their first bytes and never by the file's name.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"RIFF....WEBP", "WEBP"),
    (b"GIF8[79]a", "GIF"),
    (b"BM", "BMP"),
)
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib"})


class ImageError(ValueError):
    """A file that cannot be used as an image. Its text is a short reason such as "truncated"."""


def read(path: Path | str, most: int = -1) -> bytes:
    """Reads a file that should be an image, without waiting on pipes or swallowing huge ones.

    Args:
        path: The file.
        most: Only that many bytes from its start; -1 for all.

    Raises:
        ImageError: it does not exist, is no regular file, is empty or holds more than ``MAX_BYTES``.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"too large: {status.st_size / 1e6:.0f} MB")
        with open(path, "rb") as file:
            data = file.read(most)
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or error})") from error
    except MemoryError:
        raise ImageError("not enough memory to read it") from None
    if not data:
        raise ImageError("empty file")
    return data


def decode(source: Path | str | bytes, size: int | None = None) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP, BMP or GIF (first frame) into upright RGB.

    EXIF orientation is applied; grey is repeated; transparency is laid on white; 16 bits are scaled to 8.

    Args:
        source: A path, or the file's bytes.
        size: Where given, the picture may come back reduced, with its shorter side still at least ``size``
            pixels (or its own, where that is smaller). JPEGs are then decoded at 1/2, 1/4 or 1/8 directly,
            which is several times faster.

    Returns:
        uint8 ``(H, W, 3)``, 0..255.

    Raises:
        ImageError: the file is missing, no image of these kinds, damaged, or larger than ``MAX_PIXELS`` or
            ``MAX_BYTES`` (found out before anything is decoded).
    """
    from PIL import Image

    data = source if isinstance(source, bytes) else read(source)
    with opened(data) as picture:
        full = picture.size
        if size:
            picture.draft(None, (size, size))  # does nothing to formats other than JPEG
        with memory_for(picture, full):
            turn = _TURNS.get(orientation(picture))
            picture.load()
            rgb = _whole_pixels(_to_rgb(picture), full, size or max(full))
            if turn:
                rgb = rgb.transpose(Image.Transpose[turn])
            return np.array(rgb)


def verify(data: bytes) -> None:
    """Decodes every byte of an image file to see that it is whole, as cheaply as its format allows.

    Raises:
        ImageError: as ``decode``.
    """
    with opened(data) as picture:
        # At 1/8 a JPEG is still read to its end, but its transform costs next to nothing.
        full = picture.size
        picture.draft(None, (1, 1))
        with memory_for(picture, full):
            picture.load()


def dimensions(source: Path | str | bytes) -> tuple[int, int]:
    """Width and height in pixels as the picture is seen (EXIF orientation applied), from the header alone.

    Raises:
        ImageError: as ``decode``, as far as the header shows it.
    """
    if not isinstance(source, bytes):
        with contextlib.suppress(ImageError):  # WebP wants its whole file, and a header may be long
            return dimensions(read(source, _HEADER))
        source = read(source)
    with opened(source) as picture:
        width, height = picture.size
        return (height, width) if orientation(picture) in (5, 6, 7, 8) else (width, height)


# What EXIF's orientation asks for, by the names of PIL.Image.Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@contextlib.contextmanager
def opened(data: bytes) -> Iterator["Image.Image"]:
    """Opens an image without decoding it; whatever fails inside the block leaves as ImageError."""
    try:
        with _quiet(), _open(data) as picture:
            yield picture
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind there is on damaged files
        raise ImageError(_reason(error)) from error


def _open(data: bytes) -> "Image.Image":
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    if not data:
        raise ImageError("empty file")
    if len(data) > MAX_BYTES:
        raise ImageError(f"too large: {len(data) / 1e6:.0f} MB")
    kind = next((kind for start, kind in _SIGNATURES if re.match(start, data[:16], re.DOTALL)), None)
    # The classes are called directly because PIL.Image.open() would judge the size first, by limits that any
    # other part of the program may have moved, and would look for further pictures inside a JPEG.
    opener = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
    }.get(kind)
    if opener is None:
        raise ImageError("not an image" if data.strip(b"\0") else "not an image (only zero bytes)")
    if kind == "JPEG" and _tail_of_zeros(data):
        raise ImageError("truncated")
    _refuse_large(*_canvas(kind, data))  # these two allocate their canvas when they are opened
    picture = opener(io.BytesIO(data))
    _refuse_large(*picture.size)
    return picture


def _tail_of_zeros(data: bytes) -> bool:
    """Whether a JPEG breaks off in zeros, as an unfinished download whose length was reserved does.

    The decoder takes that for a picture that is grey from there on.
    """
    content = data.rstrip(b"\0")
    if len(data) - len(content) < 1024:
        return False
    start = 2
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] != b"\xda":
        start += 2 + max(2, int.from_bytes(content[start + 2 : start + 4], "big"))
    return b"\xff\xd9" not in content[start:]


def _canvas(kind: str, data: bytes) -> tuple[int, int]:
    """Width and height in a GIF's or WebP's header; (0, 0) where there is none."""
    if kind == "GIF" and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if kind == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return 0, 0


def _refuse_large(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"too large: {width}x{height} pixels")


def memory_for(picture: "Image.Image", full: tuple[int, int] = (0, 0)) -> contextlib.AbstractContextManager:
    """Waits, where a picture is large, until no other large one is being decoded.

    ``full`` is its size before ``draft`` reduced it: of a progressive JPEG all coefficients are in memory nevertheless.
    """
    width, height = full if picture.info.get("progressive") else picture.size
    return _one_large if width * height > _LARGE else contextlib.nullcontext()


def orientation(picture: "Image.Image") -> int:
    """EXIF's, 1 to 8; 1 where there is none.

    To be asked for before the pixels are read: what a PNG has behind them does not count, for whoever reads the header
    alone would not know of it.
    """
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # Pillow would decode all the pixels in search of one behind them
    try:
        value = picture.getexif().get(0x0112, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # a damaged EXIF block does not make the picture unusable
        return 1


def _to_rgb(picture: "Image.Image") -> "Image.Image":
    from PIL import Image

    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    layer = picture.convert("RGBA")
    if layer.getchannel("A").getextrema() == (255, 255):
        return layer.convert("RGB")
    paper = Image.new("RGB", layer.size, "white")
    paper.paste(layer, mask=layer.getchannel("A"))
    return paper


def _whole_pixels(rgb: "Image.Image", full: tuple[int, int], size: int) -> "Image.Image":
    """Reduces by a whole factor while the shorter side stays at least twice ``size``, keeping the middle.

    Pixels at the border that stand for only part of the factor are cut off, since resizing would take them for
    whole ones; and so is one more on the longer side where the centre crop would be off by half a pixel.
    """
    factor = max(1, min(rgb.size) // (2 * size))
    drafted = max(-(-whole // now) for whole, now in zip(full, rgb.size, strict=True))  # by draft(), rounded up
    if factor == drafted == 1:
        return rgb
    width, height = (side // drafted // factor for side in full)
    if (width - height) % 2:
        width, height = width - (width > height), height - (height > width)
    left, top = (
        max(0, round((whole / drafted - kept * factor) / 2)) for whole, kept in zip(full, (width, height), strict=True)
    )
    box = (left, top, left + width * factor, top + height * factor)
    return rgb.reduce(factor, box) if factor > 1 else rgb.crop(box)


def _from_16_bits(picture: "Image.Image") -> "Image.Image":
    """Grey of 16 bits, which ``convert`` would clip at 255 instead of scaling."""
    from PIL import Image

    values = np.clip(np.asarray(picture), 0, 65535).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if found := re.search(r"\((\d+) pixels\) exceeds", text):
        return f"too large: {found[1]} pixels"
    if isinstance(error, (EOFError, IndexError)) or re.search(_CUT_SHORT, text, re.IGNORECASE):
        return "truncated"
    return f"damaged ({text[:80]})" if text else "damaged"


# How Pillow's five decoders say that the bytes ended too early.
_CUT_SHORT = "truncated|no more|end of|buffer|unpack|not enough|cannot load|could not create decoder"

_quiet_lock = threading.Lock()
_quiet_depth = 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Pillow's warnings about odd files to itself, in every thread that is inside.

    ``warnings.catch_warnings`` swaps the filters of the whole process, and two threads that leave in the
    wrong order leave the wrong ones behind. One filter, for Pillow's modules only, stands while anybody is
    inside.
    """
    global _quiet_depth
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            warnings.filters.insert(0, _IGNORE_PILLOW)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                with contextlib.suppress(ValueError):  # somebody else's catch_warnings took it away
                    warnings.filters.remove(_IGNORE_PILLOW)


_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL(\.|$)"), 0)
