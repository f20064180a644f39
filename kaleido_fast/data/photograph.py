"""One photograph on its way into a shard: checked, decoded once, locked, stored as a JPEG that every reader agrees on.

The file's own bytes are kept where it is an upright RGB or grey JPEG that is not too large; all else is written anew.
"""

import io
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kaleido_fast.data.locking import Lock, find_foreground, lock

MAX_PIXELS = 100_000_000  # claimed by the header; checked before anything is decoded
QUALITY = 95
ORIENTATION = 0x0112  # EXIF tag


class UnusablePhotograph(ValueError):
    """Its message is the reason by which skipped photographs are counted."""


@dataclass(frozen=True, slots=True)
class StoredPhotograph:
    """What a shard holds of a photograph; `scale` is stored over original pixels."""

    data: bytes
    crc: int
    lock: Lock
    scale: float


def store_photograph(path: Path, max_side: int) -> StoredPhotograph:
    """Read, check and lock one photograph.

    Args:
        max_side: a longer side than this many pixels is shrunk to it.
    Raises:
        UnusablePhotograph: it cannot be decoded whole.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnusablePhotograph("unreadable file") from error
    if not data:
        raise UnusablePhotograph("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        return _store(image, data, max_side)
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        large = not isinstance(error, UnidentifiedImageError)
        raise UnusablePhotograph("more pixels than allowed" if large else "not an image") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, UnusablePhotograph):
            raise
        raise UnusablePhotograph("truncated or damaged image") from error


def _store(image: Image.Image, data: bytes, max_side: int) -> StoredPhotograph:
    if image.width * image.height > MAX_PIXELS:
        raise UnusablePhotograph("more pixels than allowed")
    kept = image.format == "JPEG" and image.mode in ("RGB", "L") and max(image.size) <= max_side \
        and image.getexif().get(ORIENTATION, 1) == 1
    longest = max(image.size)
    if longest > max_side:
        image.draft("RGB", (max_side, max_side))  # a JPEG's own cheap halvings, never below what is asked for
    image.load()
    rgb = _upright_rgb(image)
    if max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    if not kept:
        data = _jpeg(rgb)
        rgb = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = np.asarray(rgb)
    square = lock(pixels, find_foreground(pixels))
    return StoredPhotograph(data, zlib.crc32(data), square, max(rgb.size) / longest)


def _upright_rgb(image: Image.Image) -> Image.Image:
    """EXIF-upright RGB, transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def grey_jpeg(level: int, side: int = 16) -> bytes:
    """A plain grey picture, what a hole shows."""
    return _jpeg(Image.new("RGB", (side, side), (level, level, level)))


def stored_pixels(image: Image.Image, max_side: int) -> np.ndarray:
    """(H, W, 3) uint8: what a shard would hold of a picture in memory.

    Upright RGB or grey pixels of a JPEG, or of no named format, stay as they are; all else goes through the JPEG that
    `store_photograph` would write.
    """
    kept = image.format in ("JPEG", None) and image.mode in ("RGB", "L") and max(image.size) <= max_side \
        and image.getexif().get(ORIENTATION, 1) == 1
    rgb = _upright_rgb(image)
    if max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(rgb if kept else Image.open(io.BytesIO(_jpeg(rgb))).convert("RGB"))
