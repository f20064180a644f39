"""The photographs that an index names, read from where they lie: shards, or a folder of pictures."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from kaleido_fast.data.catalogue.locking import Lock, crop_locked
from kaleido_fast.data.catalogue.picture import picture_square
from kaleido_fast.data.catalogue.resize import resize_square
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.search.folder import HEADER, Entry, Header, Source

SHARDS, IMAGES = "shards", "images"


class Photographs:
    """Reads photographs of products; nothing outside the folders that the header names.

    Args:
        folder: of the index, for messages.
        max_side, image_size: as `picture_square` takes them.
    """

    def __init__(self, folder: Path, header: Header, max_side: int, image_size: int) -> None:
        self._folder, self._header, self._max_side, self._image_size = folder, header, max_side, image_size
        self._splits: dict[tuple[int, str], Split] = {}

    def read(self, entry: Entry, number: int) -> bytes:
        """The image file's bytes of a product's photograph `number`, from 0.

        Raises:
            ValueError: it has no such photograph, or it is no longer where it was.
        """
        source, place = self._where(entry, number)
        if source.kind == SHARDS:
            split, sample = self._sample(entry.source, place)
            return split.read(sample)
        try:
            return self._file(source, place).read_bytes()
        except OSError as error:
            raise self._gone(entry, source, error.strerror or str(error)) from None

    def square(self, entry: Entry, number: int) -> np.ndarray:
        """(S, S, 3) uint8: the locked square that the model reads; raises as `read`, and where it cannot be decoded."""
        source, place = self._where(entry, number)
        if source.kind != SHARDS:
            return picture_square(self._file(source, place), self._max_side, self._image_size)
        split, sample = self._sample(entry.source, place)
        row = split.rows(np.array([sample]))[0]
        try:
            pixels = np.asarray(Image.open(io.BytesIO(split.read(sample))).convert("RGB"))
        except OSError as error:
            raise self._gone(entry, source, str(error)) from None
        lock = Lock(int(row["left"]), int(row["top"]), int(row["side"]), tuple(row["fill"].tolist()))
        return resize_square(crop_locked(pixels, lock), self._image_size)

    def _where(self, entry: Entry, number: int) -> tuple[Source, str]:
        if not 0 <= number < len(entry.photographs):
            raise ValueError(f"product {entry.id}: no photograph {number}, it has {len(entry.photographs)}, counted from 0")
        if not 0 <= entry.source < len(self._header.sources):
            raise ValueError(f"product {entry.id}: source {entry.source}, {HEADER} names {len(self._header.sources)}; index "
                             "the catalogue again")
        return self._header.sources[entry.source], entry.photographs[number]

    def _sample(self, number: int, place: str) -> tuple[Split, int]:
        """The split and the sample that "SPLIT/SAMPLE" of source `number` names."""
        name, _, sample = place.partition("/")
        source = self._header.sources[number]
        if (number, name) not in self._splits:
            if Manifest.read(source.place).fingerprint != source.fingerprint:
                raise ValueError(f"{source.folder}: other shards than those that {self._folder} was made of; index them again")
            self._splits[number, name] = Split.open(source.place, name)
        split = self._splits[number, name]
        if not sample.isdecimal() or int(sample) >= split.num_samples:
            raise ValueError(f"{self._folder}: {place!r} is no photograph of {source.folder}; index the catalogue again")
        return split, int(sample)

    def _file(self, source: Source, name: str) -> Path:
        path = source.place / name
        if Path(name).name != name:
            raise ValueError(f"{self._folder}: {name!r} is no file's name; index the catalogue again")
        return path

    def _gone(self, entry: Entry, source: Source, reason: str) -> ValueError:
        return ValueError(f"product {entry.id}: its photograph in {source.folder} cannot be read ({reason}); put it back, or "
                          f"name the folder where it lies now under sources in {self._folder / HEADER}")
