"""data check: what a table row must be, of a photograph or of stored features: its numbers, its record, its tokens."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.check.finding import Finding, open_array, readable_id
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import row_bounds, sample_key

Problem = tuple[str, str]  # ending of the file, what is wrong


class RowRules:
    """What the rows of one split must be."""

    def __init__(self, folder: Path, split: str, manifest: Manifest) -> None:
        self.manifest = manifest
        self.products = open_array(folder, f"{split}.products.npy", None, (manifest.splits[split].products,), [])
        self._bounds = row_bounds(manifest, split)

    def findings(self, shard: str, sample: int, row: np.void, problems: Iterable[Problem]) -> list[Finding]:
        """The row's problems, with the sample and its product; the product table may be what cannot be read."""
        product = ""
        if self.products is not None and 0 <= row["product"] < len(self.products):
            product = readable_id(self.products["id"][row["product"]])
        return [Finding(shard + ending, what, sample, product) for ending, what in problems]

    def odd_columns(self, row: np.void) -> list[str]:
        """Numbers that would point outside of what they index."""
        return [f"{column} {row[column]}, expected {least}..{most}"
                for column, (least, most) in self._bounds.items() if not least <= row[column] <= most]

    def odd_ids(self, ids: np.ndarray) -> str:
        """What is wrong with ids that are none of the vocabulary's; "" where nothing is."""
        odd = ids[(ids < 0) | (ids >= self.manifest.vocabulary.size)]
        return f"token id {odd[0]}, expected 0..{self.manifest.vocabulary.size - 1}" if len(odd) else ""

    def record_problems(self, row: np.void, record: dict[str, Any]) -> Iterator[str]:
        """The row says what its record says."""
        expected = {"photo": row["photo"], "category": self.manifest.categories[row["category"]],
                    "subcategory": self.manifest.subcategories[row["subcategory"]]}
        if self.products is not None:
            expected["id"] = readable_id(self.products["id"][row["product"]])
        for name, value in expected.items():
            if record[name] != value:
                yield f"{name} {value!s}, the record says {record[name]!s}"
        key = sample_key(str(record["id"]), record["photo"])
        if row["key"] != key:
            yield f"key {row['key']:#018x}, expected {key:#018x} of {record['id']}/{record['photo']}"


def ids_behind(row: np.void) -> Iterator[str]:
    """Behind a row's tokens there are zeros alone."""
    if row["tokens"][row["num_tokens"] :].any():
        yield f"token ids behind the last of {row['num_tokens']}"


def parse_record(data: bytes, offset: int) -> dict[str, Any] | str:
    """A record's fields, or what is wrong with it."""
    try:
        record = json.loads(data)
        missing = {"id", "text", "category", "subcategory", "photo"} - set(record)
    except (ValueError, TypeError) as error:
        return f"record at byte {offset:,} is not JSON: {error}"
    return f"record at byte {offset:,} lacks {', '.join(sorted(missing))}" if missing else record
