"""Drawing one photograph of a product: cloth, parts, print, and a shop's light background, noise and JPEG faults."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from kaleido_fast.data.drawn.products import COLOURS, PLAIN, DrawnProduct
from kaleido_fast.data.drawn.shapes import Polygon, motif

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open
OVERSAMPLING = 2
REPEATS = 9  # of a pattern across the product: seen in patches of a third of it, too
OUTLINE = 0.55  # brightness of the dark line around every part


@dataclass(frozen=True, slots=True)
class Photograph:
    """A JPEG, the true foreground and the true box of each named part, in its pixels."""

    jpeg: bytes
    mask: np.ndarray  # (S, S) bool
    box: Box
    parts: dict[str, Box]


def draw_photograph(product: DrawnProduct, number: int, seed: int, size: int) -> Photograph:
    """Photograph `number` of a product, (size, size); the same each time."""
    rng = np.random.default_rng([seed, int(product.id), 1000 + number])
    pose = _Pose(rng, size * OVERSAMPLING)
    canvas = _Canvas(pose, size * OVERSAMPLING)
    look, article = product.look, product.article
    for polygon in article.body:
        points = canvas.fill("garment", polygon, COLOURS[look.colour])
        if look.pattern != PLAIN:
            canvas.weave(points, _pattern(look.pattern, size * OVERSAMPLING, pose.scale), COLOURS[look.accent])
    for part, style in zip(article.parts, look.parts, strict=True):
        for polygon in part.styles[style]:
            canvas.fill(part.name, polygon, COLOURS[look.accent])
    if look.motif:
        for polygon in motif(look.motif, *article.front):
            canvas.fill("print", polygon, COLOURS[look.accent], outlined=False)
    image, mask, parts = canvas.finish(size)
    pixels = _on_background(rng, image, mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    outer = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Photograph(_jpeg(rng, pixels), mask, outer, parts)


class _Pose:
    """Scale, place, a slight turn, and for every second photograph a mirror image."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.scale = size * rng.uniform(0.78, 0.95)
        angle = math.radians(rng.uniform(-5, 5))
        self.turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        self.centre = size * (0.5 + rng.uniform(-0.03, 0.03, 2))
        self.mirror = rng.random() < 0.5

    def points(self, polygon: Polygon) -> list[tuple[float, float]]:
        offset = np.array(polygon) - 0.5
        if self.mirror:
            offset[:, 0] *= -1
        return [tuple(point) for point in (offset @ self.turn.T) * self.scale + self.centre]


class _Canvas:
    """Draws polygons and remembers what they cover."""

    def __init__(self, pose: _Pose, size: int) -> None:
        self._pose, self._size = pose, size
        self._image, self._mask = Image.new("RGB", (size, size)), Image.new("L", (size, size))
        self._bounds: dict[str, list[tuple[float, float]]] = {}

    def fill(self, part: str, polygon: Polygon, colour: Colour, outlined: bool = True) -> list[tuple[float, float]]:
        """Draw a part's polygon, with a dark line around it; returns its points."""
        points = self._pose.points(polygon)
        line = tuple(int(OUTLINE * value) for value in colour) if outlined else colour
        ImageDraw.Draw(self._image).polygon(points, fill=colour, outline=line, width=OVERSAMPLING)
        ImageDraw.Draw(self._mask).polygon(points, fill=255, outline=255, width=OVERSAMPLING)
        self._bounds.setdefault(part, []).extend(points)
        return points

    def weave(self, points: list[tuple[float, float]], pattern: np.ndarray, second: Colour) -> None:
        """Lay the second colour over a polygon where the pattern (size, size) bool holds."""
        stencil = Image.new("L", (self._size, self._size))
        ImageDraw.Draw(stencil).polygon(points, fill=255)
        self._image.paste(second, mask=ImageChops.multiply(stencil, Image.fromarray(pattern.astype(np.uint8) * 255)))

    def finish(self, size: int) -> tuple[np.ndarray, np.ndarray, dict[str, Box]]:
        """(size, size, 3) fp32 image, (size, size) bool foreground, each part's box."""
        image = np.asarray(self._image.resize((size, size), Image.Resampling.BOX), np.float32)
        mask = np.asarray(self._mask.resize((size, size), Image.Resampling.BOX)) > 127
        scale = size / self._size
        return image, mask, {part: _bounds(np.array(points) * scale, size) for part, points in self._bounds.items()}


def _bounds(points: np.ndarray, size: int) -> Box:
    low = np.floor(points.min(axis=0)).clip(0, size - 1).astype(int)
    high = np.ceil(points.max(axis=0)).clip(1, size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _pattern(name: str, size: int, scale: float) -> np.ndarray:
    """(size, size) bool where the cloth has its accent: on less than half of it, or the two colours could be exchanged."""
    phase = np.arange(size, dtype=np.float32) / scale * REPEATS % 1
    x, y = phase[None, :], phase[:, None]
    shapes = {
        "stripes": lambda: np.broadcast_to(y < 0.35, (size, size)),
        "pinstripes": lambda: np.broadcast_to(x < 0.2, (size, size)),
        "dots": lambda: (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09,
        "checks": lambda: (x < 0.25) | (y < 0.25),
    }
    return shapes[name]()


def _on_background(rng: np.random.Generator, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Light: a plain, slightly uneven background, a soft shadow below, brightness and sensor noise."""
    size = len(pixels)
    x = np.arange(size, dtype=np.float32) / size - 0.5
    tone = rng.uniform(238, 254) + rng.uniform(-3, 3, 3)
    uneven = rng.uniform(-4, 4) * x + rng.uniform(-4, 4) * x[:, None]
    shadow = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(size / 40))
    shade = np.roll(np.asarray(shadow, np.float32) / 255, size // 50, axis=0) * rng.uniform(3, 9)
    background = tone + (uneven - shade)[..., None]
    lit = pixels * rng.uniform(0.92, 1.05)
    out = np.where(mask[..., None], lit, background) + 2.0 * rng.standard_normal(pixels.shape, np.float32)
    return out.clip(0, 255).astype(np.uint8)


def _jpeg(rng: np.random.Generator, pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=int(rng.integers(60, 93)), subsampling=int(rng.integers(0, 3)))
    return out.getvalue()
