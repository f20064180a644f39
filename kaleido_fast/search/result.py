"""What a query is, and what it finds."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from kaleido_fast.data.catalogue.picture import Picture

Against = Literal["both", "photographs", "texts"]
AGAINST: tuple[str, ...] = get_args(Against)


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: a text, a photograph or both (their normalised sum), or what is like a product of the index."""

    text: str = ""
    image: Picture | None = None
    like: str = ""  # a product's id


@dataclass(frozen=True, slots=True)
class Hit:
    """A product that was found."""

    id: str
    text: str
    category: str
    subcategory: str
    score: float  # what it is ranked by: the cosine, or where it was ranked again ITM's logits + cosine / temperature
    cosine: float  # -1..1, of the query and the product
    is_reranked: bool
    product: int  # its number in the index, from 0
    photograph: int  # which of its photographs fits best, from 0
    num_photographs: int

    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)
