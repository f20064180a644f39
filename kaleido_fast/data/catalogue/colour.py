"""A photograph's colours as sRGB, which is what readers of a JPEG without a profile take them for (Pillow's LittleCMS)."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

LEVELS = 6  # of each channel, at which a profile is compared with sRGB
MOST_APART = 3  # of 255: sRGB profiles of different makers differ by less


def srgb_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """What turns the colours of a picture of this profile and mode into sRGB; None where they are that, or nothing is said.

    A profile that cannot be read, or is of another kind of colours than the picture, says nothing.
    """
    profile = image.info.get("icc_profile")
    return _transform(bytes(profile), image.mode if image.mode in ("CMYK", "L") else "RGB") if profile else None


def in_srgb(image: Image.Image, rgb: Image.Image) -> Image.Image:
    """`rgb`, what was made of `image` without its profile, in sRGB."""
    transform = srgb_transform(image)
    if transform is None:
        return rgb
    converted = ImageCms.applyTransform(image if image.mode in ("CMYK", "L") else rgb, transform)
    assert converted is not None
    return converted


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, LEVELS if mode == "RGB" else 256).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3) if mode == "RGB" else levels[None]
    as_it_is = Image.fromarray(probe)
    converted = ImageCms.applyTransform(as_it_is, transform)
    assert converted is not None
    apart = np.abs(np.asarray(converted).astype(int) - np.asarray(as_it_is.convert("RGB")).astype(int))
    return None if apart.max() <= MOST_APART else transform
