"""A picture as a user has it becomes the square that the model reads: `prepare` and loader in one, without DALI.

A file goes through `store_photograph` as a catalogue's does. A picture in memory is taken for decoded pixels; where its
file would have been written anew (no upright RGB or grey JPEG, or too large), its pixels go through that JPEG too. One
difference is left: of a large JPEG file the decoder's own halving comes first, which pixels in memory cannot have.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from kaleido_fast.data.catalogue.locking import MIN_SIDE, crop_locked, find_foreground, lock
from kaleido_fast.data.catalogue.photograph import UnusablePhotograph, store_photograph, stored_pixels
from kaleido_fast.data.catalogue.product import PhotographFile
from kaleido_fast.data.catalogue.resize import resize_square

Picture = str | Path | Image.Image | np.ndarray


def picture_square(picture: Picture, max_side: int, image_size: int) -> np.ndarray:
    """(S, S, 3) uint8: the locked square, as DALI makes it on a CPU.

    Args:
        picture: a path; a PIL image; an upright uint8 array (H, W, 3) or (H, W).
        max_side: pixels; a longer side is shrunk to it, as `prepare` does with its `max_side`.
    Raises:
        ValueError: it cannot be read, or is none of these.
    """
    if isinstance(picture, str | Path):
        return _square_of_file(Path(picture), max_side, image_size)
    image = picture if isinstance(picture, Image.Image) else _image_of(picture)
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"a picture of {image.width} x {image.height} pixels; each side needs at least {MIN_SIDE}")
    try:
        pixels = stored_pixels(image, max_side)
    except OSError as error:  # Pillow opens a file first and reads it late
        raise ValueError(f"{getattr(picture, 'filename', '') or 'PIL image'}: {error}") from None
    return resize_square(crop_locked(pixels, lock(pixels, find_foreground(pixels))), image_size)


def _square_of_file(path: Path, max_side: int, image_size: int) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path}: no such photograph")
    try:
        stored = store_photograph(PhotographFile(path), max_side)
    except UnusablePhotograph as error:
        raise ValueError(f"{path}: {error}") from None
    pixels = np.asarray(Image.open(io.BytesIO(stored.data)).convert("RGB"))
    return resize_square(crop_locked(pixels, stored.lock), image_size)


def _image_of(picture: np.ndarray) -> Image.Image:
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"a picture is a path, a PIL image or a uint8 array, found {type(picture).__name__}")
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)) or not picture.size:
        raise ValueError(f"a picture's array is uint8 (H, W, 3) or (H, W), found {picture.dtype} {picture.shape}")
    return Image.fromarray(picture)
