"""What the generated catalogue can sell: colours, patterns, motifs and the articles with their choices.

Tables only. A further article is a further row here and a silhouette of the same name.
"""

from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (30, 30, 33),
    "white": (246, 246, 244),
    "grey": (140, 143, 148),
    "red": (208, 28, 40),
    "orange": (245, 126, 24),
    "yellow": (250, 214, 48),
    "green": (34, 139, 62),
    "turquoise": (58, 196, 190),
    "blue": (40, 104, 222),
    "navy": (26, 42, 112),
    "purple": (124, 54, 168),
    "pink": (247, 144, 186),
    "brown": (116, 70, 38),
    "beige": (214, 186, 140),
}
MIN_CONTRAST = 130.0  # Euclidean RGB distance between the cloth and what is drawn on it

PLAIN = "plain"
PATTERNS: dict[str, tuple[str, str]] = {  # name: the adjective of a title, the noun of a description
    "horizontal stripes": ("striped", "horizontal stripes"),
    "vertical stripes": ("pinstriped", "vertical stripes"),
    "diagonal stripes": ("diagonal", "diagonal stripes"),
    "dots": ("dotted", "round dots"),
    "checks": ("checked", "checks"),
    "zigzags": ("zigzag", "zigzag lines"),
    "colour block": ("colour block", "lower half"),
}

MOTIFS = ("star", "heart", "circle", "square", "triangle", "diamond", "cross", "crescent", "flower", "lightning")


@dataclass(frozen=True, slots=True)
class Slot:
    """One choice an article offers: a part and the noun phrases it can be drawn as ("" leaves it out)."""

    part: str
    styles: tuple[str, ...]
    tinted_share: float = 0.5  # of the products whose part has a colour of its own


@dataclass(frozen=True, slots=True)
class Article:
    """A silhouette with its place in the category tree and its choices."""

    name: str
    category: str
    subcategory: str
    article_type: str
    nouns: tuple[str, ...]
    genders: tuple[str, ...]
    slots: tuple[Slot, ...]
    print_place: str = ""  # where a motif is printed; "" where none fits
    print_replaces: str = ""  # the part a print leaves no room for


_ALL = ("Men", "Women", "Unisex")
_SLEEVES = Slot("sleeves", ("short sleeves", "long sleeves"))
_CHEST_POCKET = Slot("pocket", ("", "chest pocket"))
_WAIST = Slot("waistband", ("", "wide waistband"), 1.0)
_HEM = Slot("hem", ("", "hem band"), 1.0)

ARTICLES: tuple[Article, ...] = (
    Article(
        "t-shirt", "Apparel", "Topwear", "Tshirts", ("t-shirt", "tee"), _ALL,
        (_SLEEVES, Slot("neck", ("round neck", "v-neck")), _CHEST_POCKET, _HEM), "chest", "pocket",
    ),
    Article(
        "shirt", "Apparel", "Topwear", "Shirts", ("shirt", "button-up shirt"), _ALL,
        (
            _SLEEVES, Slot("collar", ("pointed collar", "band collar")), Slot("placket", ("", "button placket"), 0.9),
            _CHEST_POCKET,
        ),
    ),
    Article(
        "sweater", "Apparel", "Topwear", "Sweaters", ("sweater", "pullover"), _ALL,
        (
            Slot("neck", ("round neck", "turtleneck", "v-neck")), Slot("cuffs", ("", "ribbed cuffs"), 1.0),
            Slot("hem", ("", "ribbed hem"), 1.0),
        ),
        "chest",
    ),
    Article(
        "jacket", "Apparel", "Topwear", "Jackets", ("jacket", "zip jacket"), _ALL,
        (
            Slot("collar", ("hood", "stand collar", "lapels")), Slot("pocket", ("", "slanted pockets", "flap pockets"), 0.7),
            Slot("cuffs", ("", "cuffs"), 1.0), Slot("zip", ("zip",), 0.8),
        ),
    ),
    Article(
        "dress", "Apparel", "Dress", "Dresses", ("dress", "frock"), ("Women",),
        (
            Slot("sleeves", ("thin straps", "short sleeves", "long sleeves"), 0.3), Slot("skirt", ("flared skirt", "slim skirt"), 0.2),
            Slot("belt", ("", "belt"), 1.0), Slot("hem", ("", "hem band", "frill hem"), 1.0),
        ),
        "skirt front",
    ),
    Article(
        "skirt", "Apparel", "Bottomwear", "Skirts", ("skirt",), ("Women",),
        (Slot("length", ("knee length", "mini length"), 0.0), _WAIST, Slot("hem", ("", "hem band", "frill hem"), 1.0), Slot("pocket", ("", "patch pockets"))),
        "front", "pocket",
    ),
    Article(
        "trousers", "Apparel", "Bottomwear", "Trousers", ("trousers", "pants"), _ALL,
        (
            Slot("legs", ("wide legs", "slim legs"), 0.0), _WAIST, Slot("pocket", ("", "cargo pockets", "side pockets"), 0.7),
            Slot("cuffs", ("", "turned-up cuffs"), 0.8),
        ),
    ),
    Article(
        "shorts", "Apparel", "Bottomwear", "Shorts", ("shorts",), _ALL,
        (_WAIST, Slot("pocket", ("", "cargo pockets", "side pockets"), 0.7), Slot("side bands", ("", "side bands"), 1.0), Slot("hem", ("", "hem bands"), 1.0)),
    ),
    Article(
        "sneaker", "Footwear", "Shoes", "Casual Shoes", ("sneaker", "trainer"), _ALL,
        (
            Slot("shaft", ("low top", "high top"), 0.0), Slot("sole", ("flat sole", "chunky sole"), 1.0),
            Slot("laces", ("laces",), 1.0), Slot("toe", ("", "toe cap"), 0.9),
        ),
        "side",
    ),
    Article(
        "boot", "Footwear", "Shoes", "Boots", ("boot",), _ALL,
        (
            Slot("shaft", ("ankle shaft", "knee-high shaft"), 0.0), Slot("sole", ("flat heel", "high heel"), 0.8),
            Slot("strap", ("", "buckled strap"), 1.0), Slot("top", ("", "folded top"), 1.0),
        ),
    ),
    Article(
        "handbag", "Bags", "Handbags", "Handbags", ("handbag", "purse"), ("Women",),
        (
            Slot("handle", ("round handle", "long strap"), 0.6), Slot("flap", ("", "front flap", "pointed flap"), 1.0),
            Slot("clasp", ("clasp",), 1.0), Slot("base", ("", "base panel"), 1.0),
        ),
    ),
    Article(
        "shopper", "Bags", "Shoppers", "Tote Bags", ("tote bag", "shopper"), _ALL,
        (Slot("handle", ("short handles", "long handles"), 0.6), Slot("base", ("", "base panel"), 1.0), Slot("top", ("", "top border"), 1.0)),
        "front",
    ),
    Article(
        "backpack", "Bags", "Backpacks", "Backpacks", ("backpack", "rucksack"), _ALL,
        (
            Slot("straps", ("shoulder straps",), 0.7), Slot("pocket", ("front pocket", "twin pockets"), 0.8),
            Slot("flap", ("", "top flap"), 1.0), Slot("base", ("", "base panel"), 1.0),
        ),
        "upper front", "flap",
    ),
    Article(
        "hat", "Accessories", "Headwear", "Hats", ("hat",), _ALL,
        (
            Slot("brim", ("wide brim", "narrow brim"), 0.5), Slot("band", ("", "hat band"), 1.0),
            Slot("crown", ("round crown", "flat crown"), 0.0), Slot("ornament", ("", "bow", "feather"), 1.0),
        ),
    ),
    Article(
        "cap", "Accessories", "Headwear", "Caps", ("cap", "baseball cap"), _ALL,
        (Slot("peak", ("curved peak", "flat peak"), 0.8), Slot("button", ("", "top button"), 1.0), Slot("band", ("", "rim band"), 1.0)),
        "front",
    ),
    Article(
        "scarf", "Accessories", "Scarves", "Scarves", ("scarf",), _ALL,
        (Slot("fringe", ("", "fringe"), 1.0), Slot("border", ("", "end borders"), 1.0), Slot("knot", ("loose ends", "knot"), 0.0)),
        "end",
    ),
)
