"""Attributes of the drawn products: each from its own random stream, no two alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from kaleido_fast.data.generated.articles import ARTICLES, COLOURS, MIN_CONTRAST, MOTIFS, PATTERNS, PLAIN, Article
from kaleido_fast.data.generated.words import Wording, describe

FIRST_ID = 100_001
MAX_ATTEMPTS = 200  # draws for one product before the catalogue counts as sold out
PATTERNED_SHARE = 0.6
PRINTED_SHARE = {True: 0.25, False: 0.8}  # of the patterned and of the plain products on which a print fits
PHOTO_SHARES = (0.3, 0.4, 0.3)  # of the products with 1, 2 and 3 photographs


@dataclass(frozen=True, slots=True)
class Part:
    """A drawn part; an empty colour means that it is cut from the cloth."""

    name: str
    style: str
    colour: str


@dataclass(frozen=True, slots=True)
class Look:
    """All that decides how a product looks; two products with equal looks would be alike."""

    article: Article
    colour: str
    pattern: str  # PLAIN or a name of PATTERNS
    second: str  # the pattern's colour, "" on plain cloth
    parts: tuple[Part, ...]
    motif: str  # "" for no print
    motif_colour: str

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def style(self, name: str) -> str:
        part = self.part(name)
        return part.style if part else ""


@dataclass(frozen=True, slots=True)
class Product:
    """One row of the catalogue."""

    number: int
    look: Look
    wording: Wording
    num_photos: int

    @property
    def id(self) -> str:
        return str(FIRST_ID + self.number)


def sample_products(num_products: int, seed: int) -> Iterator[Product]:
    """The first products of the endless catalogue of `seed`; looks and texts are all different.

    Product n is drawn from streams keyed by (seed, n, attempt) and depends on the products before it alone, so it is
    the same in a catalogue of any size.

    Raises:
        ValueError: no further different product was found.
    """
    looks: set[Look] = set()
    texts: set[str] = set()
    for number in range(num_products):
        product = _first_new(number, seed, looks, texts)
        looks.add(product.look)
        texts.add(product.wording.text)
        yield product


def _first_new(number: int, seed: int, looks: set[Look], texts: set[str]) -> Product:
    for attempt in range(MAX_ATTEMPTS):
        rng = np.random.default_rng([seed, number, attempt])
        look = sample_look(rng)
        wording = describe(look, rng)
        if look not in looks and wording.text not in texts:
            return Product(number, look, wording, 1 + int(rng.choice(len(PHOTO_SHARES), p=PHOTO_SHARES)))
    raise ValueError(f"generate: no product unlike the first {number} in {MAX_ATTEMPTS} draws; ask for fewer products")


def sample_look(rng: np.random.Generator) -> Look:
    article = pick(rng, ARTICLES)
    colour = pick(rng, tuple(COLOURS))
    pattern = pick(rng, tuple(PATTERNS)) if rng.random() < PATTERNED_SHARE else PLAIN
    second = "" if pattern == PLAIN else pick(rng, contrasting(colour))
    printed = article.print_place and rng.random() < PRINTED_SHARE[pattern != PLAIN]
    motif = pick(rng, MOTIFS) if printed else ""
    parts = _sample_parts(rng, article, colour, leave_out=article.print_replaces if printed else "")
    motif_colours = [name for name in contrasting(colour) if not second or name in contrasting(second)]
    motif_colour = pick(rng, motif_colours) if printed else ""
    return Look(article, colour, pattern, second, parts, motif, motif_colour)


def _sample_parts(rng: np.random.Generator, article: Article, colour: str, leave_out: str) -> tuple[Part, ...]:
    parts = []
    for slot in article.slots:
        style = pick(rng, slot.styles)
        tint = pick(rng, contrasting(colour)) if rng.random() < slot.tinted_share else ""
        if style and slot.part != leave_out:
            parts.append(Part(slot.part, style, tint))
    return tuple(parts)


@cache
def contrasting(colour: str) -> tuple[str, ...]:
    """The colours that stand out clearly on cloth of this colour."""
    here = np.array(COLOURS[colour], float)
    return tuple(name for name, rgb in COLOURS.items() if np.linalg.norm(here - rgb) >= MIN_CONTRAST)


def pick[T](rng: np.random.Generator, choices: tuple[T, ...] | list[T]) -> T:
    return choices[int(rng.integers(len(choices)))]
