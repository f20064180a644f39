"""data show: what a folder of shards holds, in numbers: products, texts, categories, locked squares, bytes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kaleido_fast.data.catalogue.locking import find_foreground, square_around
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.progress_bar import ProgressBar

MAX_TOKENS = 64  # T, with [CLS] and [SEP]; what the share of cut texts is told for
ROWS_AT_ONCE = 4096
LISTED = 100  # categories named one by one


@dataclass(slots=True)
class SplitStatistics:
    """One split; arrays are small beside its tables."""

    name: str
    num_photographs: int
    photographs: np.ndarray  # (products,) int32 of each product
    tokens: np.ndarray  # (products,) int32 of each product's text
    unknown: int  # of these tokens, [UNK]
    category: np.ndarray  # (products,) int32
    subcategory: np.ndarray  # (products,) int32
    locked_share: np.ndarray  # (readable photographs,) fp32 area of the square over that of the photograph
    no_foreground: int  # photographs whose square is the whole picture because nothing was found on it
    broken: int  # photographs that cannot be read
    stored_bytes: int  # of photographs
    field_tokens: np.ndarray  # (products, fields) int32


def split_statistics(split: Split) -> SplitStatistics:
    """Numbers of one split; reads the header of every photograph, and decodes those that seem to be locked whole."""
    tokens, unknown = _tokens(split)
    shares = np.full(split.num_samples, np.nan, np.float32)
    whole = stored = 0
    with ProgressBar(split.num_samples, split.name, "photo") as bar:
        for start in range(0, split.num_samples, ROWS_AT_ONCE):
            rows = split.rows(np.arange(start, min(start + ROWS_AT_ONCE, split.num_samples)))
            stored += int(rows["length"].sum())
            for place, (row, usable) in enumerate(zip(rows, split.plausible(rows), strict=True)):
                image = _open(split, start + place) if usable else None
                if image is not None:
                    shares[start + place] = float(row["side"]) ** 2 / (image.width * image.height)
                    whole += _locked_whole(image, row)
                bar.update()
    products, broken = split.products, np.isnan(shares)
    return SplitStatistics(
        split.name, split.num_samples, np.array(products["num_samples"]), tokens, unknown, np.array(products["category"]),
        np.array(products["subcategory"]), shares[~broken], whole, int(broken.sum()), stored, _field_tokens(split))


def describe_shards(folder: Path, manifest: Manifest, splits: Sequence[SplitStatistics]) -> str:
    """A text for a person."""
    lines = [f"{folder}"]
    for split in splits:
        lines.append(f"  {split.name:<11}{len(split.photographs):>10,} products {split.num_photographs:>10,} photographs")
    tokens, photographs, shares = (np.concatenate([getattr(split, name) for split in splits])
                                   for name in ("tokens", "photographs", "locked_share"))
    total = sum(split.num_photographs for split in splits)
    size, stored = folder_size(folder, manifest), sum(split.stored_bytes for split in splits)
    cut = float((tokens > MAX_TOKENS - 2).mean())
    lines += [
        f"photographs a product: {histogram(photographs)}",
        f"tokens a text: {spread_of(tokens, ',.0f')}; {cut:.1%} are cut at {MAX_TOKENS} with [CLS] and [SEP]; vocabulary "
        f"{manifest.vocabulary.size:,} words, {sum(split.unknown for split in splits) / max(int(tokens.sum()), 1):.1%} of the "
        "tokens are unknown to it",
        *_field_lines(manifest.fields, [split.field_tokens for split in splits]),
        f"locked share (square over photograph): {spread_of(100 * shares, '.0f', ' %')}",
        f"no foreground found, locked whole: {_part(sum(split.no_foreground for split in splits), total)}",
        f"broken, see 'data check': {_part(sum(split.broken for split in splits), total)}",
        f"stored: {readable_bytes(size)}, of it photographs {readable_bytes(stored)}, "
        f"{readable_bytes(stored / max(total, 1))} each",
        *class_lines("categories", manifest.categories, [split.category for split in splits]),
        *class_lines("sub-categories", manifest.subcategories, [split.subcategory for split in splits]),
    ]
    if manifest.skipped_counts:
        lines.append("skipped by prepare: " + ", ".join(f"{n:,} x {reason}" for reason, n in manifest.skipped_counts.items()))
    return "\n".join(lines)


def _tokens(split: Split) -> tuple[np.ndarray, int]:
    """(products,) tokens of each text, and how many of all are [UNK]."""
    counts, unknown = [np.empty(0, np.int32)], 0
    for start in range(0, split.num_products, ROWS_AT_ONCE):
        rows = split.rows(split.products["first_sample"][start : start + ROWS_AT_ONCE])
        counts.append(rows["num_tokens"])
        is_token = np.arange(rows["tokens"].shape[1]) < rows["num_tokens"][:, None]
        unknown += int((is_token & (rows["tokens"] == split.manifest.vocabulary.unk_id)).sum())
    return np.concatenate(counts), unknown


def _field_tokens(split: Split) -> np.ndarray:
    """(products, fields) int32 tokens of each field."""
    if not split.manifest.fields:
        return np.empty((split.num_products, 0), np.int32)
    ranges = split.fields(split.products["first_sample"]).astype(np.int32)
    return ranges[..., 1] - ranges[..., 0]


def _field_lines(names: Sequence[str], tokens: Sequence[np.ndarray]) -> list[str]:
    """Of each field how many products have it, and how long it is there."""
    lines = []
    for name, counts in zip(names, np.concatenate(tokens).T, strict=True):
        lines.append(f"field {name}: {(counts > 0).mean():.1%} of the products have it; tokens: "
                     f"{spread_of(counts[counts > 0], ',.0f')}")
    return lines


def _open(split: Split, sample: int) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(split.read(sample)), formats=["JPEG"])
    except (BrokenSample, OSError, SyntaxError):
        return None


def _locked_whole(image: Image.Image, row: np.void) -> bool:
    """Whether the finder found nothing; only where the square is the whole photograph's is it asked again."""
    if (row["left"], row["top"], row["side"]) != square_around(image.width, image.height, None):
        return False
    return find_foreground(np.asarray(image.convert("RGB"))) is None


def class_lines(kind: str, names: Sequence[str], classes: Sequence[np.ndarray]) -> list[str]:
    """How many products of each, the most frequent first."""
    counts = np.bincount(np.concatenate(classes), minlength=len(names))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    listed = ", ".join(f"{names[place] or '(none)'} {counts[place]:,}" for place in order[:LISTED])
    more = f" and {len(order) - LISTED:,} more" if len(order) > LISTED else ""
    return [f"{len(names):,} {kind}: {listed}{more}"]


def histogram(values: np.ndarray) -> str:
    numbers, counts = np.unique(values, return_counts=True)
    return ", ".join(f"{number}: {count:,}" for number, count in zip(numbers.tolist(), counts.tolist(), strict=True))


def spread_of(values: np.ndarray, form: str, unit: str = "") -> str:
    if not len(values):
        return "none"
    least, median, high, most = values.min(), np.median(values), np.quantile(values, 0.95), values.max()
    return (f"least {least:{form}}{unit}, median {median:{form}}{unit}, p95 {high:{form}}{unit}, most {most:{form}}{unit}")


def _part(count: int, total: int) -> str:
    return f"{count:,} of {total:,} photographs ({count / max(total, 1):.1%})"


def folder_size(folder: Path, manifest: Manifest) -> int:
    return sum((folder / name).stat().st_size for name in manifest.files() if (folder / name).is_file())


def readable_bytes(count: float) -> str:
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} B" if units[0] == "B" else f"{count:.1f} {units[0]}"
