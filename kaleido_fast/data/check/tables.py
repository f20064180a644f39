"""data check: what is no single photograph's: the vocabulary and the tables of products."""

from itertools import combinations
from pathlib import Path

import numpy as np

from kaleido_fast.data.check.finding import Finding, open_array, readable_id
from kaleido_fast.data.shards.manifest import VOCABULARY, Manifest
from kaleido_fast.data.shards.tokenizer import Tokenizer


def check_vocabulary(folder: Path, manifest: Manifest) -> list[Finding]:
    """vocab.txt can be read and is the manifest's."""
    try:
        vocabulary = Tokenizer.from_vocab(folder / VOCABULARY).vocabulary()
    except ValueError as error:
        return [Finding(VOCABULARY, str(error))]
    expected = manifest.vocabulary
    return [
        Finding(VOCABULARY, f"{field} {getattr(vocabulary, field)}, the manifest says {getattr(expected, field)}")
        for field in vocabulary.__slots__ if getattr(vocabulary, field) != getattr(expected, field)
    ]


def check_products(folder: Path, split: str, manifest: Manifest) -> tuple[list[Finding], np.ndarray]:
    """Findings of a split's two tables of products, and its ids (none where they cannot be read)."""
    file, entry = f"{split}.products.npy", manifest.splits[split]
    findings: list[Finding] = []
    table = open_array(folder, file, None, (entry.products,), findings)
    if table is None:
        return findings, np.empty(0, "S1")
    together = _tiled if manifest.features is None else _counted  # one product's rows may lie apart in feature files
    findings += _sorted(file, table["id"]) + together(file, table, sum(entry.samples))
    for column, names in (("category", manifest.categories), ("subcategory", manifest.subcategories)):
        odd = np.flatnonzero((table[column] < 0) | (table[column] >= len(names)))
        findings += [_finding(file, table["id"][row], f"{column} {table[column][row]}, expected one of 0..{len(names) - 1}")
                     for row in odd]
    return findings + _by_subcategory(folder, split, table), np.array(table["id"])


def check_overlap(ids: dict[str, np.ndarray]) -> list[Finding]:
    """No product lies in two splits."""
    return [
        _finding(f"{first}.products.npy", both, f"is in split '{second}' too; a product belongs to one split")
        for first, second in combinations(ids, 2) for both in np.intersect1d(ids[first], ids[second])
    ]


def _sorted(file: str, ids: np.ndarray) -> list[Finding]:
    """Ids ascend, so that they can be searched; none stands there twice."""
    return [
        _finding(file, ids[row + 1], f"stands in row {row + 1} behind '{readable_id(ids[row])}'; ids must ascend, each once")
        for row in np.flatnonzero(ids[1:] <= ids[:-1])
    ]


def _tiled(file: str, table: np.ndarray, num_samples: int) -> list[Finding]:
    """The products' photographs lie one behind the other and are all of the split's."""
    order = np.argsort(table["first_sample"], kind="stable")
    first, count = table["first_sample"][order], table["num_samples"][order].astype(np.int64)
    expected = np.concatenate([[0], (first + count)[:-1]]) if len(order) else first
    findings = [
        _finding(file, table["id"][order[place]], f"its first photograph is sample {first[place]} of {count[place]}, "
                                                  f"expected sample {expected[place]} and at least one")
        for place in np.flatnonzero((first != expected) | (count < 1))
    ]
    end = int((first + count)[-1]) if len(order) else 0
    if end != num_samples:
        findings.append(Finding(file, f"its products have {end} photographs, the manifest says {num_samples}"))
    return findings


def _counted(file: str, table: np.ndarray, num_samples: int) -> list[Finding]:
    """The products have all of the split's rows."""
    num_rows = int(table["num_samples"].astype(np.int64).sum())
    findings = [_finding(file, table["id"][place], f"its first row is sample {table['first_sample'][place]}, expected one of "
                                                   f"0..{num_samples - 1}")
                for place in np.flatnonzero((table["first_sample"] < 0) | (table["first_sample"] >= num_samples))]
    if num_rows != num_samples:
        findings.append(Finding(file, f"its products have {num_rows} rows, the manifest says {num_samples}"))
    return findings


def _by_subcategory(folder: Path, split: str, table: np.ndarray) -> list[Finding]:
    file = f"{split}.by_subcategory.npy"
    findings: list[Finding] = []
    ranks = open_array(folder, file, np.dtype(np.int64), (len(table),), findings)
    if ranks is None:
        return findings
    odd = np.flatnonzero(ranks != np.argsort(table["subcategory"], kind="stable"))
    if len(odd):
        findings.append(Finding(file, f"rank {ranks[odd[0]]} in row {odd[0]}: products must stand by sub-category, then by "
                                      f"id ({len(odd)} rows do not)"))
    return findings


def _finding(file: str, product: bytes, what: str) -> Finding:
    return Finding(file, what, product=readable_id(product))
