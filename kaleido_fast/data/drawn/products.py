"""Attributes and words of the drawn products: each from its own random stream, no two alike in look or text.

A product has two colours at the most: that of the cloth, and an accent in which its pattern, its print and its parts are drawn.
With a colour for each part, up to six in a text, a model learned last of all which colour belongs to what: the best wrong
candidates of a query had its cut and its parts, and another colour.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kaleido_fast.data.drawn.shapes import ARTICLES, MOTIFS, Article

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 30), "grey": (140, 142, 146), "red": (208, 28, 40), "orange": (245, 126, 24),
    "yellow": (250, 214, 48), "green": (34, 139, 62), "turquoise": (58, 196, 190), "blue": (40, 104, 222),
    "navy": (24, 38, 110), "purple": (124, 54, 168), "pink": (247, 144, 186), "brown": (116, 70, 38),
    "beige": (214, 186, 140),
}
PLAIN = "plain"
PATTERNS = (PLAIN, "stripes", "pinstripes", "dots", "checks")
GENDERS = ("men", "women", "everyone")
MIN_CONTRAST = 120.0  # Euclidean RGB distance of neighbouring colours
FIRST_ID = 100_001
PLAIN_SHARE = 0.5
PRINTED_SHARE = 0.6  # of those in plain cloth
MAX_ATTEMPTS = 200
Piece = tuple[str, tuple[str, ...]]  # words of a text, and the parts that they name


@dataclass(frozen=True, slots=True)
class Look:
    """All that decides how a product looks."""

    article: int  # index into ARTICLES
    colour: str
    accent: str  # colour of pattern, print and parts; "" where there are none
    pattern: str
    parts: tuple[str, ...]  # style of each of the article's parts, "" where left out
    motif: str  # of the print, "" without one


@dataclass(frozen=True, slots=True)
class DrawnProduct:
    """One row of the catalogue; `spans` are character ranges of title + ". " + description by part."""

    id: str
    look: Look
    title: str
    description: str
    spans: dict[str, tuple[tuple[int, int], ...]]
    gender: str
    num_photographs: int

    @property
    def article(self) -> Article:
        return ARTICLES[self.look.article]


def sample_products(num_products: int, seed: int) -> Iterator[DrawnProduct]:
    """The first products of the endless catalogue of `seed`: the same in a catalogue of any size.

    Raises:
        ValueError: no further different product was found.
    """
    looks: set[Look] = set()
    for number in range(num_products):
        for attempt in range(MAX_ATTEMPTS):
            rng = np.random.default_rng([seed, number, attempt])
            look = _look(rng)
            if look not in looks:
                break
        else:
            raise ValueError(f"generate: no product unlike the first {number}; ask for fewer products")
        looks.add(look)
        yield _product(str(FIRST_ID + number), look, rng)


def contrasting(*colours: str) -> list[str]:
    """Colours that stand out clearly against all of the given ones."""
    given = np.array([COLOURS[name] for name in colours], float)
    return [name for name, rgb in COLOURS.items() if np.linalg.norm(given - rgb, axis=1).min() >= MIN_CONTRAST]


def _look(rng: np.random.Generator) -> Look:
    article = int(rng.integers(len(ARTICLES)))
    colour = _pick(rng, list(COLOURS))
    accent = _pick(rng, contrasting(colour))
    plain = rng.random() < PLAIN_SHARE
    pattern = PLAIN if plain else _pick(rng, [name for name in PATTERNS if name != PLAIN])
    parts = tuple(_pick(rng, list(part.styles)) for part in ARTICLES[article].parts)
    motif = _pick(rng, list(MOTIFS)) if plain and rng.random() < PRINTED_SHARE else ""
    return Look(article, colour, accent if motif or not plain or any(parts) else "", pattern, parts, motif)


def _product(name: str, look: Look, rng: np.random.Generator) -> DrawnProduct:
    # Every attribute is named once: a masked word cannot be copied from elsewhere in the text, only seen.
    article, gender = ARTICLES[look.article], _pick(rng, list(GENDERS))
    patterned, garment = look.pattern != PLAIN, ("garment",)
    title: list[Piece] = [(look.colour, garment)]
    if look.accent:
        styled = (part.name for part, style in zip(article.parts, look.parts, strict=True) if style)
        title += [("and", ()), (look.accent, (*garment * patterned, *styled, *("print",) * bool(look.motif)))]
    title += [(article.noun, garment), (f"for {gender}", ())]
    body: list[Piece] = [(_pick(rng, ["Made", "Comes", "Designed"]), ())]
    body += [("with", ()), (look.pattern, garment)] if patterned else [("in plain cloth", garment)]
    for part, style in zip(article.parts, look.parts, strict=True):
        if style:
            body += [(_pick(rng, ["and", "with"]), ()), (style, (part.name,))]
    if look.motif:
        body += [("and", ()), (f"a {look.motif}", ("print",)), (_pick(rng, ["on the front", "as a print"]), ())]
    title_text, title_spans = _join(title, 0)
    title_text = title_text.capitalize()
    text, text_spans = _join(body, len(title_text) + 2)
    spans: dict[str, tuple[tuple[int, int], ...]] = {}
    for part_name, span in title_spans + text_spans:
        spans[part_name] = (*spans.get(part_name, ()), span)
    return DrawnProduct(name, look, title_text, text, spans, gender, 1 + int(rng.choice(3, p=(0.3, 0.4, 0.3))))


def _join(pieces: list[Piece], start: int) -> tuple[str, list[tuple[str, tuple[int, int]]]]:
    """The pieces as one text, and the character ranges of those that name a part, or several."""
    text, spans = "", []
    for piece, named in pieces:
        text += " " if text else ""
        spans += [(part, (start + len(text), start + len(text) + len(piece))) for part in named]
        text += piece
    return text, spans


def _pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
