"""KaleidoIndex: an opened index, and what it answers (SPEC 12)."""

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.data.catalogue.picture import Picture
from kaleido_fast.options import AGAINST_PHOTOGRAPHS, INDEX_MORE, Option, OptionError, typed_path
from kaleido_fast.search.approximate import Approximate
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.exact import ExactScores, greatest
from kaleido_fast.search.folder import DIGITS, MODEL, Contents, Entry, Header, read_contents, read_entries
from kaleido_fast.search.photographs import Photographs
from kaleido_fast.search.result import AGAINST, Against, Hit, Query

FEW = 0.05  # of the products: a smaller share of them is gathered for each query instead of keeping all in memory
AT_LEAST, SPARE = 100, 8  # rows from the approximate index: at least, and for each product that is asked for
NEAREST = 5  # names that an unknown one is compared with


class KaleidoIndex:
    """Products of a catalogue, found by a text, a photograph or both.

        index = KaleidoIndex.open("index")
        for hit in index.search("red cotton dress", k=12, category="Dresses"):
            print(hit.score, hit.id, hit.text)

    All of it may be called by several threads at once.
    """

    def __init__(self, folder: Path, contents: Contents, encoder: Encoder, approximate: bool = False) -> None:
        """Raises ValueError as `open`."""
        require_same_model(folder, contents.header, encoder)
        self.folder, self.header, self.encoder, self._contents = folder, contents.header, encoder, contents
        self.photographs = contents.photographs  # (P, E) fp16, mapped into memory
        self.texts = contents.texts  # (n, E) fp16
        self.table = contents.table  # (n,) as folder.py has it
        self._first = contents.table["first_photograph"].astype(np.int64)
        self._approximate = Approximate(folder, contents) if approximate else None
        self._has_text = np.any(self.texts, axis=1)
        model = encoder.model
        self._files = Photographs(folder, self.header, encoder.pretrained.preprocessing.max_side, model.image_size)

    @classmethod
    def open(
        cls, folder: str | Path, *, model: str | Path | None = None, device: str = "cpu", precision: str = "fp32",
        approximate: bool = False,
    ) -> "KaleidoIndex":
        """Open what `kaleido-fast index` wrote.

        Args:
            model: an exported folder that reads the queries, the same model as made the index; the index's own by default.
            device, precision: of the model, "cpu" or "cuda", "fp32" or "bf16".
            approximate: candidates come from the approximate index, where no category is asked for.
        Raises:
            ValueError: no index there, a part is missing or damaged, or the queries' model is another one; no approximate
                index, or none of this state.
        """
        place = typed_path(folder)
        contents = read_contents(place)
        encoder = Encoder.load(typed_path(model or place / MODEL), torch.device(device), precision)
        return cls(place, contents, encoder, approximate)

    def __len__(self) -> int:
        """How many products it holds."""
        return self.header.products

    def search(
        self, text: str = "", *, image: Picture | None = None, like: str = "", k: int = 12, category: str = "",
        rerank: int = 0, against: Against = "both",
    ) -> list[Hit]:
        """The k products that fit best, the best first; fewer where fewer are there.

        Args:
            text, image, like: as Query has them; a text and a picture may come together.
            category: only products of this category or sub-category, in any letter case.
            rerank: how many of the first are ranked again by ITM and cosine together; their photographs are read for it.
            against: what of a product the query is compared with: its photographs, of which the best counts, its text, or
                the mean of both.
        Raises:
            ValueError: nothing that can be looked for, a picture that cannot be read, an unknown category or product, or an
                index without products, or without the texts that are asked for.
        """
        self._check(k, rerank, against)
        query = Query(text.strip(), image, like)
        embedding = self.embedding(query)
        members = self.members(category)
        if self._approximate is not None and not category.strip():
            members = self._candidates(embedding, against, AT_LEAST + SPARE * max(k, rerank))
        cosines = self._cosines(embedding, against, members)
        if like:
            cosines[self.number(like)] = -np.inf
        places = greatest(cosines, max(k, rerank))
        best = [self._best_photograph(int(place), embedding) for place in places]
        entries = self.entries(places)
        scores, count = cosines[places].astype(np.float64), min(rerank, len(places))
        if count:
            scores[:count] = self.encoder.scale * scores[:count] + self._matches(query, entries[:count], best[:count])
            order = np.concatenate([np.argsort(-scores[:count], kind="stable"), np.arange(count, len(places))])
        else:
            order = np.arange(len(places))
        return [Hit(entry.id, entry.text, entry.category, entry.subcategory, float(scores[one]), float(cosines[places[one]]),
                    bool(one < count), int(places[one]), best[one], len(entry.photographs))
                for one in order[:k] for entry in (entries[one],)]

    def embedding(self, query: Query) -> np.ndarray:
        """(E,) fp32 of length 1: what the products are compared with. Raises ValueError as `search`."""
        if sum((bool(query.text or query.image is not None), bool(query.like))) != 1:
            raise OptionError("a query is a text, a picture (", Option("image"), "), or both, or the id of a product (",
                              Option("like"), "); give one of them")
        if query.like:
            return np.asarray(self.photographs[self._first[self.number(query.like)]], np.float32)
        parts = []
        if query.text:
            if not self.encoder.known_words(query.text):
                raise ValueError(f"query {query.text[:80]!r}: the model knows none of its words; use words that its catalogue "
                                 "used, such as a kind and a colour")
            parts.append(self.encoder.texts([query.text])[0])
        if query.image is not None:
            embeddings, unreadable = self.encoder.pictures_of([query.image])
            if unreadable:
                raise ValueError(f"the query's picture: {unreadable[0]}")
            parts.append(embeddings[0])
        total = np.sum(parts, axis=0)
        return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)

    def members(self, category: str) -> np.ndarray:
        """(n,) bool: the products of a category or sub-category; all without one. Raises ValueError: there is none."""
        if not category.strip():
            return np.ones(len(self), bool)
        names = (("category", self.header.categories), ("subcategory", self.header.subcategories))
        wanted = category.strip().casefold()
        chosen = {column: [number for number, name in enumerate(known) if name.casefold() == wanted] for column, known in names}
        if not any(chosen.values()):
            raise ValueError(f"category {category!r}: {_unlike(category, [name for _, known in names for name in known])}")
        return np.logical_or.reduce([np.isin(self.table[column], numbers) for column, numbers in chosen.items()])

    def number(self, product_id: str) -> int:
        """The number of the product with this id. Raises ValueError: there is none."""
        places = np.flatnonzero(self.table["id"] == product_id.encode())
        if not len(places):
            raise ValueError(f"{self.folder}: no product {product_id!r}")
        return int(places[0])

    def entries(self, products: Sequence[int] | np.ndarray) -> list[Entry]:
        """What the index says of the products of these numbers."""
        return read_entries(self._contents, products)

    def photograph(self, product: int, number: int = 0) -> bytes:
        """The image file of a product's photograph, both counted from 0. Raises ValueError: it cannot be read."""
        return self._files.read(self.entries([product])[0], number)

    def square(self, product: int, number: int = 0) -> np.ndarray:
        """(S, S, 3) uint8: the same, as the model reads it."""
        return self._files.square(self.entries([product])[0], number)

    def _check(self, k: int, rerank: int, against: str) -> None:
        if k < 1:
            raise OptionError(Option("k", "-k"), f"={k} must be at least 1")
        if rerank < 0:
            raise OptionError(Option("rerank"), f"={rerank} must be at least 0")
        if against not in AGAINST:
            raise OptionError(Option("against"), f"={against}: unknown; use {', '.join(AGAINST)}")
        if not len(self):
            raise OptionError(f"{self.folder}: this index holds no products; take some in with ", INDEX_MORE)
        if against == "texts" and not self.header.texts:
            raise OptionError(f"{self.folder}: none of its products has a text; search against photographs (",
                              AGAINST_PHOTOGRAPHS, ")")

    def _cosines(self, embedding: np.ndarray, against: str, members: np.ndarray) -> np.ndarray:
        """(n,) fp32 of the `members` (n,) bool; -inf elsewhere."""
        some, numbers = members.mean() < FEW, np.flatnonzero(members)
        scores = self._scores_of(numbers) if some else self._all_scores
        has_text = self._has_text[numbers] if some else self._has_text
        if against == "texts":
            cosines = np.where(has_text, scores.texts(embedding), np.float32(-np.inf))
        else:
            cosines = scores.photographs(embedding)
            if against == "both":
                cosines = np.where(has_text, (cosines + scores.texts(embedding)) / 2, cosines)
        if not some:
            return np.where(members, cosines, np.float32(-np.inf))
        everywhere = np.full(len(self), -np.inf, np.float32)
        everywhere[numbers] = cosines
        return everywhere

    @functools.cached_property
    def _all_scores(self) -> ExactScores:
        """Everything in memory as fp32, made when it is first asked for."""
        return ExactScores(self.photographs, self.texts, self._first)

    def _scores_of(self, numbers: np.ndarray) -> ExactScores:
        """Of the products of these numbers alone, ascending."""
        counts = self.table["num_photographs"][numbers].astype(np.int64)
        firsts = np.cumsum(counts) - counts
        rows = np.repeat(self._first[numbers] - firsts, counts) + np.arange(counts.sum())
        return ExactScores(self.photographs[rows], self.texts[numbers], firsts)

    def _candidates(self, embedding: np.ndarray, against: str, count: int) -> np.ndarray:
        """(n,) bool: the products of the nearest rows."""
        assert self._approximate is not None
        members = np.zeros(len(self), bool)
        if against != "texts":
            rows = self._approximate.nearest("photographs", embedding, count)
            members[np.searchsorted(self._first, rows, side="right") - 1] = True
        if against != "photographs":
            members[self._approximate.nearest("texts", embedding, count)] = True
        return members

    def _best_photograph(self, product: int, embedding: np.ndarray) -> int:
        first, count = self._first[product], int(self.table["num_photographs"][product])
        return int(np.argmax(self.photographs[first : first + count].astype(np.float32) @ embedding)) if count > 1 else 0

    def _matches(self, query: Query, entries: list[Entry], photographs: list[int]) -> np.ndarray:
        """(m,) ITM's logits: of the query's text with the products' photographs, else of its picture with their texts."""
        if query.text:
            squares = [self._files.square(entry, number) for entry, number in zip(entries, photographs, strict=True)]
            return self.encoder.matches(np.stack(squares), [query.text] * len(squares))
        without = next((entry.id for entry in entries if not entry.text), None)
        if without is not None:
            raise OptionError(f"product {without}: it has no text, with which a picture could be matched; give a text too, or "
                              "leave out ", Option("rerank"))
        if query.image is not None:
            square = self.encoder.square(query.image)
        else:
            square = self._files.square(self.entries([self.number(query.like)])[0], 0)
        return self.encoder.matches(np.stack([square] * len(entries)), [entry.text for entry in entries])


def require_same_model(folder: Path, header: Header, encoder: Encoder) -> None:
    """Refuse (ValueError) a model whose embeddings cannot be compared with those of the index."""
    if header.model != encoder.fingerprint or header.size != encoder.size:
        raise OptionError(f"{folder}: made by another model (fingerprint {header.model[:DIGITS]}…, this one's is "
                          f"{encoder.fingerprint[:DIGITS]}…), so its embeddings mean nothing here; give that model, or index "
                          "the catalogue again into another ", Option("out"))


def _unlike(name: str, known: list[str]) -> str:
    """What is said of a name that is not known."""
    known = sorted({one for one in known if one})
    lowered = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.strip().casefold(), lowered, n=1, cutoff=0.5)
    listed = ", ".join(known[:NEAREST]) + (f" and {len(known) - NEAREST} others" if len(known) > NEAREST else "")
    return f"not in this index{f'; did you mean {lowered[near[0]]!r}?' if near else ''} (it has {listed or 'no categories'})"
