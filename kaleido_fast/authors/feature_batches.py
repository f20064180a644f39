"""Batches of the authors' feature files: no photograph is read, nothing is drawn; locations and plan come with the features.

The packed rows of a batch go up in one piece and become fp32 on the device.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from kaleido_fast.authors.feature_samples import FeatureSamples, require_plan, require_width
from kaleido_fast.authors.fixed_plan import fixed_plan, rows_in_place
from kaleido_fast.authors.plan_file import hole_rows, plausible_plans
from kaleido_fast.data.batches.assembler import Assembled
from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.field_draw import FieldDraw
from kaleido_fast.data.batches.patches import ReadyRows
from kaleido_fast.data.batches.prefetch import Prefetcher
from kaleido_fast.data.batches.source import BatchRequest
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.data.store.row_format import unpack_rows
from kaleido_fast.data.store.shard_stores import readers_for

PLANNED = ("rotation", "permutation", "camouflage", "grey_slots", "blank_slots")  # besides the masks


class FromFeatureFiles:
    """The features of a split's own shards, which `prepare_kaleido_tsv` made."""

    def __init__(self, split: Split) -> None:
        """Raises ValueError: the shards have no features, or features without a plan."""
        require_plan(split.folder, split.manifest)
        self.split, self._samples = split, FeatureSamples(split)

    def batches(self, request: BatchRequest) -> Iterator[Batch]:
        """As BatchSource has it; texts are the files' own, so that `text_seed` changes nothing.

        Raises:
            ValueError: data.max_tokens is not the files' width, own texts are asked for, or fields are to be dropped.
        """
        if request.own_texts:
            raise ValueError(f"{self.split.folder}: made of the authors' feature files, which hold neither the own text of a "
                             "mismatched sample nor its clean patches; contrast needs both: set train.task_weights.itc=0")
        FieldDraw.of(self.split, request.settings, request.field_seed)  # refuses: these texts have none
        require_width(self.split, request.settings.max_tokens)
        return Prefetcher(_FeatureBatches(self._samples, request), request.settings.prefetch)

    def describe(self) -> dict[str, Any]:
        """What the manifest says of the features."""
        return {"features": dataclasses.asdict(self._samples.kind)}


class _Work(NamedTuple):
    """What the host has of a batch."""

    assembled: Assembled
    plans: np.ndarray  # (B,) plan_dtype
    locations: np.ndarray  # (B, K, 5) int32
    packed: Tensor  # (B, rows, row_bytes) uint8


class _FeatureBatches:
    """Makes them."""

    def __init__(self, samples: FeatureSamples, request: BatchRequest) -> None:
        self._split, self._samples, self._request = samples.split, samples, request
        self._upload, self._readers = Upload(request.device), readers_for(request.device)

    def make(self, number: int) -> _Work:
        """Rows of the table and of the plan, blocks of features."""
        samples, epochs = self._request.order(number)
        real, present = np.maximum(samples, 0), samples >= 0
        rows, plans = self._split.rows(real), self._samples.plans(real)
        lengths = np.clip(rows["num_tokens"], 0, self._split.manifest.token_width) + 2
        odd = ~(self._split.plausible(rows) & plausible_plans(plans, lengths, self._split.manifest.vocabulary.size))
        self._drop(odd, samples, present, f"its row in the table or in the plan holds numbers that cannot be; {REPAIR}")
        packed = self._packed()
        whole = self._samples.copy(np.where(present, samples, -1), packed.numpy().reshape(len(samples), -1), self._readers)
        self._drop(~whole, samples, present, f"its features do not match their CRC32; {REPAIR}")
        rows[~present] = np.zeros(1, rows.dtype)
        plans[~present] = hole_rows(1)
        tokens, lengths = token_rows(rows["tokens"], rows["num_tokens"], self._split.manifest.vocabulary,
                                     self._request.settings.max_tokens)
        products, match = rows["product"].astype(np.int64), plans["match"] == 1
        masked = (plans["masked_positions"] >= 0).sum(axis=1).astype(np.int32)
        host = HostBatch(samples, products, products, lengths, match, present, masked)
        assembled = Assembled(host, rows, tokens, np.zeros(tokens.shape, np.int64), epochs)
        return _Work(assembled, plans, self._samples.locations(real), packed)

    def to_device(self, work: _Work) -> Batch:
        planned = {name: work.plans[name] for name in ("masked_positions", "masked_labels", *PLANNED)}
        uploaded = self._upload(planned | work.assembled.arrays() | {"locations": work.locations})
        rows = unpack_rows(self._upload.send(work.packed), self._samples.dtype)
        labels: dict[str, Any] = {name: uploaded[name] for name in PLANNED}
        plan = fixed_plan(uploaded["tokens"], uploaded["masked_positions"], uploaded["masked_labels"], **labels)
        patches = ReadyRows(rows_in_place(rows, uploaded["grey_slots"]), uploaded["locations"])
        return work.assembled.batch(uploaded, patches, plan)

    def _packed(self) -> Tensor:
        """An empty batch of packed rows, where it can be uploaded from without waiting."""
        rows = self._samples.kind.rows
        return self._upload.empty(self._request.micro_batch, rows, self._samples.block_bytes // rows)

    def _drop(self, odd: np.ndarray, samples: np.ndarray, present: np.ndarray, reason: str) -> None:
        for index in np.flatnonzero(odd & present):
            present[index] = False
            self._request.holes[f"{self._split.name} sample {samples[index]}"] = reason
