"""Silhouettes of the drawn articles: polygons in a unit square, y downwards, each part on top of the one before."""

import math
from dataclasses import dataclass

Point = tuple[float, float]
Polygon = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class PartShape:
    """A part that an article may have: what it is called and where it lies."""

    name: str
    styles: dict[str, tuple[Polygon, ...]]  # noun phrase of the text -> polygons; () leaves the part out


@dataclass(frozen=True, slots=True)
class Article:
    """One kind of product."""

    noun: str
    category: str
    subcategory: str
    article_type: str
    body: tuple[Polygon, ...]
    parts: tuple[PartShape, ...]
    front: tuple[float, float, float]  # centre and half width of a print, clear of all parts: they have its colour


def mirrored(polygon: Polygon) -> Polygon:
    """The polygon on the other side of the middle."""
    return tuple((1 - x, y) for x, y in polygon)


def both(*polygons: Polygon) -> tuple[Polygon, ...]:
    """The polygons and their mirror images."""
    return tuple(shape for polygon in polygons for shape in (polygon, mirrored(polygon)))


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Polygon:
    """A closed arc, degrees clockwise from the right."""
    angles = [math.radians(start + (end - start) * k / 24) for k in range(25)]
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles)


def motif(name: str, x: float, y: float, r: float) -> tuple[Polygon, ...]:
    """A printed figure of half width r around (x, y)."""
    shapes = {
        "star": (tuple((x + (r if k % 2 == 0 else 0.42 * r) * math.sin(k * math.pi / 5),
                        y - (r if k % 2 == 0 else 0.42 * r) * math.cos(k * math.pi / 5)) for k in range(10)),),
        "heart": (ellipse(x - 0.48 * r, y - 0.35 * r, 0.52 * r, 0.5 * r),
                  ellipse(x + 0.48 * r, y - 0.35 * r, 0.52 * r, 0.5 * r),
                  ((x - 0.95 * r, y - 0.15 * r), (x + 0.95 * r, y - 0.15 * r), (x, y + r))),
        "circle": (ellipse(x, y, r, r),),
        "square": (box(x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r),),
        "triangle": (((x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)),),
        "diamond": (((x, y - r), (x + 0.7 * r, y), (x, y + r), (x - 0.7 * r, y)),),
        "cross": (box(x - 0.3 * r, y - r, x + 0.3 * r, y + r), box(x - r, y - 0.3 * r, x + r, y + 0.3 * r)),
    }
    return shapes[name]


MOTIFS = ("star", "heart", "circle", "square", "triangle", "diamond", "cross")

_TORSO = ((0.32, 0.16), (0.68, 0.16), (0.72, 0.9), (0.28, 0.9))
_SHORT = ((0.32, 0.16), (0.14, 0.38), (0.24, 0.46), (0.33, 0.36))
_LONG = ((0.32, 0.16), (0.08, 0.74), (0.18, 0.79), (0.33, 0.4))
_SLEEVES = PartShape("sleeves", {"short sleeves": both(_SHORT), "long sleeves": both(_LONG)})
_HEM = PartShape("hem", {"": (), "a wide hem": (box(0.284, 0.8, 0.716, 0.9),)})
_COLLAR = PartShape("collar", {
    "a round collar": (ellipse(0.5, 0.16, 0.14, 0.1, 0, 180),),
    "a pointed collar": both(((0.5, 0.2), (0.36, 0.13), (0.34, 0.3))),
})
_POCKET = PartShape("pockets", {"": (), "two pockets": both(box(0.33, 0.62, 0.45, 0.76))})

ARTICLES = (
    Article("t-shirt", "Apparel", "Topwear", "Tshirts", (_TORSO,), (_SLEEVES, _COLLAR, _HEM), (0.5, 0.5, 0.15)),
    Article("jacket", "Apparel", "Topwear", "Jackets", (_TORSO,), (
        _SLEEVES, _COLLAR, _POCKET, PartShape("zip", {"a zip": (box(0.475, 0.2, 0.525, 0.9),)})), (0.4, 0.47, 0.06)),
    Article("dress", "Apparel", "Dress", "Dresses", (
        ((0.37, 0.08), (0.63, 0.08), (0.6, 0.4), (0.8, 0.95), (0.2, 0.95), (0.4, 0.4)),), (
        PartShape("belt", {"": (), "a belt": (box(0.385, 0.37, 0.615, 0.45),)}),
        PartShape("hem", {"": (), "a wide hem": (((0.243, 0.83), (0.757, 0.83), (0.8, 0.95), (0.2, 0.95)),)}),
        PartShape("straps", {"thin straps": both(box(0.39, 0.0, 0.43, 0.09)),
                             "broad straps": both(box(0.37, 0.0, 0.46, 0.09))})),
        (0.5, 0.65, 0.14)),
    Article("skirt", "Apparel", "Bottomwear", "Skirts", (((0.34, 0.15), (0.66, 0.15), (0.84, 0.85), (0.16, 0.85)),), (
        PartShape("waistband", {"": (), "a broad waistband": (box(0.33, 0.12, 0.67, 0.24),)}),
        PartShape("hem", {"": (), "a wide hem": (((0.19, 0.73), (0.81, 0.73), (0.84, 0.85), (0.16, 0.85)),)}), _POCKET),
        (0.5, 0.5, 0.13)),
    Article("trousers", "Apparel", "Bottomwear", "Trousers", (
        ((0.31, 0.08), (0.69, 0.08), (0.76, 0.95), (0.56, 0.95), (0.5, 0.36), (0.44, 0.95), (0.24, 0.95)),), (
        PartShape("waistband", {"": (), "a broad waistband": (box(0.305, 0.06, 0.695, 0.15),)}),
        PartShape("pockets", {"": (), "two pockets": both(box(0.28, 0.45, 0.41, 0.6))}),
        PartShape("cuffs", {"": (), "turned-up cuffs": both(box(0.24, 0.86, 0.445, 0.95))})), (0.36, 0.3, 0.07)),
    Article("boot", "Footwear", "Shoes", "Boots", (
        ((0.3, 0.1), (0.58, 0.1), (0.58, 0.58), (0.88, 0.7), (0.92, 0.84), (0.3, 0.84)),), (
        PartShape("sole", {"a flat sole": (box(0.28, 0.82, 0.93, 0.91),),
                           "a high heel": (box(0.28, 0.82, 0.93, 0.87), box(0.28, 0.82, 0.44, 0.97))}),
        PartShape("shaft", {"": (), "a folded top": (box(0.27, 0.08, 0.61, 0.24),)}),
        PartShape("buckle", {"": (), "a buckled strap": (box(0.29, 0.5, 0.6, 0.58),)})), (0.44, 0.38, 0.1)),
    Article("handbag", "Bags", "Handbags", "Handbags", (((0.18, 0.4), (0.82, 0.4), (0.9, 0.92), (0.1, 0.92)),), (
        PartShape("handle", {"a round handle": (ellipse(0.5, 0.42, 0.22, 0.3, 180, 360),),
                             "two handles": both(box(0.27, 0.1, 0.33, 0.42), box(0.33, 0.1, 0.4, 0.16))}),
        PartShape("flap", {"": (), "a front flap": (((0.18, 0.4), (0.82, 0.4), (0.5, 0.56)),)}),
        PartShape("base", {"": (), "a firm base": (box(0.115, 0.8, 0.885, 0.92),)})), (0.5, 0.69, 0.1)),
    Article("backpack", "Bags", "Backpacks", "Backpacks", (
        ((0.28, 0.2), (0.4, 0.1), (0.6, 0.1), (0.72, 0.2), (0.78, 0.92), (0.22, 0.92)),), (
        PartShape("pocket", {"a front pocket": (box(0.3, 0.6, 0.7, 0.86),), "two pockets": both(box(0.27, 0.6, 0.47, 0.86))}),
        PartShape("flap", {"": (), "a top flap": (
            ((0.29, 0.2), (0.4, 0.1), (0.6, 0.1), (0.71, 0.2), (0.72, 0.32), (0.28, 0.32)),)}),
        PartShape("loop", {"": (), "a carry loop": (ellipse(0.5, 0.1, 0.1, 0.09, 180, 360),)})), (0.5, 0.46, 0.11)),
    Article("cap", "Accessories", "Headwear", "Caps", (ellipse(0.45, 0.62, 0.34, 0.4, 180, 360),), (
        PartShape("peak", {"a curved peak": (ellipse(0.68, 0.62, 0.28, 0.1, -90, 180),),
                           "a flat peak": (box(0.5, 0.57, 0.98, 0.66),)}),
        PartShape("band", {"": (), "a rim band": (box(0.115, 0.53, 0.785, 0.62),)}),
        PartShape("button", {"": (), "a top button": (ellipse(0.45, 0.22, 0.06, 0.05),)})), (0.42, 0.42, 0.11)),
)
