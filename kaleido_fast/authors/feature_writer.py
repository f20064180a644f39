"""Writing shards whose samples have stored features and no photographs."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.authors.plan_file import plan_dtype
from kaleido_fast.data.shards.manifest import ShardFeatures
from kaleido_fast.data.shards.split import table_dtype
from kaleido_fast.data.store.feature_store import ENDING, StoreWriter
from kaleido_fast.kernels.geometry import num_positions


@dataclass(frozen=True, slots=True)
class FeatureSample:
    """One row to write; `row` has the columns of the table that are neither the record's nor the words'."""

    features: np.ndarray  # (rows, F) float32
    locations: np.ndarray  # (K, 5) int32
    plan: np.ndarray | None  # () `plan_dtype`
    words: np.ndarray  # int32, at most `token_width`
    record: dict[str, Any]
    row: dict[str, Any]


class FeatureShardWriter:
    """One shard: store, locations, plan where there is one, records, table."""

    def __init__(
        self, folder: Path, name: str, token_width: int, features: ShardFeatures, recipe: dict[str, Any]
    ) -> None:
        self._folder, self._name, self._width, self._has_plan = folder, name, token_width, features.has_plan
        self._store = StoreWriter(folder / f"{name}{ENDING}", features.dtype, features.rows, features.num_features, recipe)
        self._records = (folder / f"{name}.jsonl").open("wb")
        self._rows: list[np.ndarray] = []
        self._locations: list[np.ndarray] = []
        self._plans: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, sample: FeatureSample) -> None:
        """Append one sample."""
        self._store.add(sample.features)
        record = json.dumps(sample.record, sort_keys=True, ensure_ascii=False).encode()
        row = np.zeros((), table_dtype(self._width))
        row["offset"], row["length"], row["crc"] = self._records.tell(), len(record), zlib.crc32(record)
        row["num_tokens"] = len(sample.words)
        row["tokens"][: len(sample.words)] = sample.words
        for column, value in sample.row.items():
            row[column] = value
        self._records.write(record + b"\n")
        self._rows.append(row)
        self._locations.append(sample.locations)
        if self._has_plan:
            assert sample.plan is not None
            self._plans.append(sample.plan)

    def close(self) -> int:
        """Write what stands beside the store; returns the number of samples."""
        self._records.close()
        self._save("table", self._rows, table_dtype(self._width))
        self._save("locations", self._locations, np.dtype("<i4"), (num_positions(), 5))
        if self._has_plan:
            self._save("plan", self._plans, plan_dtype())
        return self._store.close()

    def _save(self, kind: str, rows: list[np.ndarray], dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
        np.save(self._folder / f"{self._name}.{kind}.npy", np.array(rows, dtype).reshape(-1, *shape))
