"""One photograph on its way into a shard: checked, decoded once, locked, stored as a JPEG that every reader agrees on.

The file's own bytes are kept where it is an upright sRGB or grey JPEG that is not too large; all else is written anew.
"""

import io
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kaleido_fast.data.catalogue.colour import in_srgb, srgb_transform
from kaleido_fast.data.catalogue.locking import MIN_SIDE, Lock, find_foreground, lock
from kaleido_fast.data.catalogue.product import PhotographSource

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # by content; others may start programs (EPS) or lack a still
MAX_PIXELS = 100_000_000  # claimed by the header; checked before anything is decoded
MOST_SIDE = 65_500  # of a JPEG
QUALITY = 95
GREY_JPEG_SIDE = 16  # pixels of what a hole shows
ORIENTATION = 0x0112  # EXIF tag
HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what every decoder knows
SCAN, FRAMES = 0xDA, (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


class UnusablePhotograph(ValueError):
    """Its message is the reason by which skipped photographs are counted."""


@dataclass(frozen=True, slots=True)
class StoredPhotograph:
    """What a shard holds of a photograph; `scale` is stored over original pixels."""

    data: bytes
    crc: int
    lock: Lock
    scale: float


def store_photograph(source: PhotographSource, max_side: int) -> StoredPhotograph:
    """Read, check and lock one photograph.

    Args:
        max_side: a longer side than this many pixels is shrunk to it.
    Raises:
        UnusablePhotograph: it cannot be decoded whole, or is no photograph to learn from.
    """
    try:
        data = source.read()
    except OSError as error:
        raise UnusablePhotograph("unreadable file") from error
    if not data:
        raise UnusablePhotograph("empty file")
    rgb, keeps_bytes, scale = _decode(data, max_side)
    if not keeps_bytes:
        data = _jpeg(rgb)
        rgb = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = np.asarray(rgb)
    return StoredPhotograph(data, zlib.crc32(data), lock(pixels, find_foreground(pixels)), scale)


def _decode(data: bytes, max_side: int) -> tuple[Image.Image, bool, float]:
    """The upright RGB picture, whether the file can stay as it is, and stored over original pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which is not read, and of sizes, which are checked
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_kind(image)
            return _shrunk(image, data, max_side)
    except (UnusablePhotograph, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnusablePhotograph("not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image") from error
    except Image.DecompressionBombError as error:
        raise UnusablePhotograph(TOO_LARGE) from error
    except Exception as error:  # Pillow on a stranger's bytes: struct.error, SyntaxError, KeyError, ... by the format
        raise UnusablePhotograph("truncated or damaged image") from error


TOO_LARGE = f"more than {MAX_PIXELS:,} pixels"
TOO_SMALL = f"a side of less than {MIN_SIDE} pixels"


def _check_kind(image: Image.Image) -> None:
    """Refuse what the header alone rules out."""
    if image.width * image.height > MAX_PIXELS:
        raise UnusablePhotograph(TOO_LARGE)
    if min(image.size) < MIN_SIDE:
        raise UnusablePhotograph(TOO_SMALL)
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a phone's JPEG with a second view behind it
        raise UnusablePhotograph("animated image")


def _shrunk(image: Image.Image, data: bytes, max_side: int) -> tuple[Image.Image, bool, float]:
    keeps_bytes = image.format == "JPEG" and image.mode in ("RGB", "L") and max(image.size) <= max_side \
        and image.getexif().get(ORIENTATION, 1) == 1 and _plain_jpeg(data) and srgb_transform(image) is None
    longest = max(image.size)
    if longest > max_side:
        image.draft("RGB", (max_side, max_side))  # a JPEG's own cheap halvings, never below what is asked for
    image.load()
    rgb = _upright_rgb(image)
    if max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return rgb, keeps_bytes, max(rgb.size) / longest


def _plain_jpeg(data: bytes) -> bool:
    """Whether the markers up to the first scan follow each other and announce a Huffman-coded frame.

    Pillow forgives more than other decoders do; what is not plain is written anew.
    """
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == SCAN:
            return True
        if marker in FRAMES and marker not in HUFFMAN_FRAMES:
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


def _upright_rgb(image: Image.Image) -> Image.Image:
    """EXIF-upright sRGB, transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a channel
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return in_srgb(image, white)
    return in_srgb(image, image.convert("RGB"))


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def grey_jpeg(level: int, side: int = GREY_JPEG_SIDE) -> bytes:
    """A plain grey picture, what a hole shows."""
    return _jpeg(Image.new("RGB", (side, side), (level, level, level)))


def stored_pixels(image: Image.Image, max_side: int) -> np.ndarray:
    """(H, W, 3) uint8: what a shard would hold of a picture in memory.

    Upright RGB or grey pixels of a JPEG, or of no named format, stay as they are; all else goes through the JPEG that
    `store_photograph` would write.
    """
    keeps_bytes = image.format in ("JPEG", None) and image.mode in ("RGB", "L") and max(image.size) <= max_side \
        and image.getexif().get(ORIENTATION, 1) == 1 and srgb_transform(image) is None
    rgb = _upright_rgb(image)
    if max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(rgb if keeps_bytes else Image.open(io.BytesIO(_jpeg(rgb))).convert("RGB"))
