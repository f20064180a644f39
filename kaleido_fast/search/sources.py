"""What an index is made of: the products of shards or of a folder of pictures, in parts that workers share out.

A part is embedded at once and kept until the index is whole, so that a run that was interrupted goes on with the next part.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.catalogue.picture import picture_square
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.manifest import Manifest, fingerprint
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.options import Option, OptionError
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.folder import Entry, Source
from kaleido_fast.search.photographs import IMAGES, SHARDS
from kaleido_fast.training.workers.share_out import ShardWork, all_shards

PICTURES_A_PART = 1024


class Embedded(NamedTuple):
    """Some photographs of a part, in order."""

    embeddings: np.ndarray  # (b, E) fp32
    present: np.ndarray  # (b,) bool, False where one could not be read


class ProductSource(Protocol):
    """Products and their photographs, in parts."""

    source: Source

    def parts(self, known: Collection[str]) -> list[ShardWork]:
        """The parts, in order, each with its number of photographs, of the products whose ids are not `known`."""

    @property
    def num_known(self) -> int:
        """How many products `parts` left out."""

    def entries(self, part: ShardWork, number: int) -> Iterator[Entry]:
        """The products whose first photograph lies in the part, in order; the source has this number in the index."""

    def embed(self, part: ShardWork, encoder: Encoder, holes: dict[str, str]) -> Iterator[Embedded]:
        """The part's photographs batch by batch; those that cannot be read are named in `holes`, and why."""


class ShardProducts:
    """Products of shards; a part is a shard.

    Args:
        splits: all without one.
        decode_threads: that decode photographs.
    """

    def __init__(self, folder: Path, splits: Sequence[str] = (), decode_threads: int = 2) -> None:
        """Raises ValueError: no shards, no such split, or shards of features."""
        self._folder, self._splits, self._decode_threads = folder, splits, decode_threads
        self._manifest = Manifest.read(folder)
        self._manifest.require_photographs(folder, "index")
        for name in splits:
            if name not in self._manifest.splits:
                raise OptionError(Option("splits"), f": {folder} has no {name!r}, it has {', '.join(self._manifest.splits)}")
        self.source = Source(SHARDS, str(folder.resolve()), self._manifest.fingerprint)
        self._opened: dict[str, Split] = {}
        self._is_new: dict[str, np.ndarray] = {}  # of a split's products, by their ranks

    def parts(self, known: Collection[str]) -> list[ShardWork]:
        parts = []
        for shard in all_shards(self._manifest):
            if (self._splits and shard.split not in self._splits) or not shard.samples:
                continue
            split = self._split(shard.split)
            if shard.split not in self._is_new:
                self._is_new[shard.split] = np.array(
                    [one.decode() not in known for one in split.products["id"].tolist()], bool)
            if len(samples := self._samples(shard)):
                parts.append(ShardWork(shard.split, shard.name, shard.first, len(samples)))
        return parts

    @property
    def num_known(self) -> int:
        return sum(int((~is_new).sum()) for is_new in self._is_new.values())

    def entries(self, part: ShardWork, number: int) -> Iterator[Entry]:
        split, manifest = self._split(part.split), self._manifest
        size = dict(zip(split.shards, manifest.splits[part.split].samples, strict=True))[part.name]
        firsts = split.products["first_sample"]
        ranks = np.flatnonzero((firsts >= part.first) & (firsts < part.first + size) & self._is_new[part.split])
        for rank in ranks[np.argsort(firsts[ranks], kind="stable")]:
            row = split.products[rank]
            first = int(row["first_sample"])
            samples = range(first, first + int(row["num_samples"]))
            yield Entry(row["id"].decode(), _text(split, first), manifest.categories[row["category"]],
                        manifest.subcategories[row["subcategory"]], number,
                        tuple(f"{part.split}/{sample}" for sample in samples))

    def embed(self, part: ShardWork, encoder: Encoder, holes: dict[str, str]) -> Iterator[Embedded]:
        split, model = self._split(part.split), encoder.model
        samples = self._samples(part)
        settings = DataSettings(
            shards=str(self._folder), image_size=model.image_size, max_tokens=encoder.pretrained.preprocessing.max_tokens,
            decode_threads=self._decode_threads)
        batches = evaluation_batches(FromPhotographs(split), samples, settings, seed=0, micro_batch=encoder.batch_size,
                                     device=encoder.device, draw_text=False, holes=holes)
        for batch in batches:
            count = int((batch.host.samples >= 0).sum())
            yield Embedded(encoder.batch(batch, count), batch.host.present[:count].copy())

    def _samples(self, shard: ShardWork) -> np.ndarray:
        """(m,) int64 photographs of new products in a shard."""
        split = self._split(shard.split)
        size = dict(zip(split.shards, self._manifest.splits[shard.split].samples, strict=True))[shard.name]
        samples = shard.first + np.arange(size)
        if self._is_new[shard.split].all():
            return samples
        return samples[self._is_new[shard.split][split.rows(samples)["product"]]]

    def _split(self, name: str) -> Split:
        if name not in self._opened:
            self._opened[name] = Split.open(self._folder, name)
        return self._opened[name]


class PictureProduct(NamedTuple):
    """A product and its pictures' files, all in one folder."""

    id: str
    text: str
    category: str
    subcategory: str
    files: tuple[str, ...]  # names


class PictureProducts:
    """Products of a folder of pictures; a part is some of them.

    Args:
        decode_threads: that decode photographs.
    """

    def __init__(self, folder: Path, products: Sequence[PictureProduct], decode_threads: int = 2) -> None:
        self._folder, self._products, self._decode_threads = folder, products, decode_threads
        self.source, self.num_known = Source(IMAGES, str(folder.resolve())), 0
        self._of_part: dict[str, list[PictureProduct]] = {}

    def parts(self, known: Collection[str]) -> list[ShardWork]:
        new = [product for product in self._products if product.id not in known]
        self.num_known = len(self._products) - len(new)
        parts, first = [], 0
        while first < len(new):
            counts = itertools.accumulate(len(product.files) for product in new[first:])
            taken = max(1, sum(1 for _ in itertools.takewhile(lambda count: count <= PICTURES_A_PART, counts)))
            chosen = new[first : first + taken]
            name = f"images-{fingerprint(repr(chosen).encode())[:16]}"  # other products are another part
            self._of_part[name] = chosen
            parts.append(ShardWork(IMAGES, name, first, sum(len(product.files) for product in chosen)))
            first += taken
        return parts

    def entries(self, part: ShardWork, number: int) -> Iterator[Entry]:
        for product in self._of_part[part.name]:
            yield Entry(product.id, product.text, product.category, product.subcategory, number, product.files)

    def embed(self, part: ShardWork, encoder: Encoder, holes: dict[str, str]) -> Iterator[Embedded]:
        files = [self._folder / name for product in self._of_part[part.name] for name in product.files]
        max_side, side = encoder.pretrained.preprocessing.max_side, encoder.model.image_size

        def square(file: Path) -> np.ndarray | str:
            try:
                return picture_square(file, max_side, side)
            except ValueError as error:
                return str(error).removeprefix(f"{file}: ")

        with ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode") as pool:
            read = pool.map(square, files)
            for start in range(0, len(files), encoder.batch_size):
                batch = [next(read) for _ in files[start : start + encoder.batch_size]]
                present = np.array([not isinstance(one, str) for one in batch])
                embeddings = np.zeros((len(batch), encoder.size), np.float32)
                if present.any():
                    embeddings[present] = encoder.squares(np.stack([one for one in batch if not isinstance(one, str)]))
                holes |= {file.name: one for file, one in zip(files[start:], batch, strict=False) if isinstance(one, str)}
                yield Embedded(embeddings, present)


def _text(split: Split, sample: int) -> str:
    """A product's text; "" where its record is damaged, as its photograph is then."""
    try:
        return str(split.record(sample)["text"])
    except (BrokenSample, KeyError):
        return ""
