"""data check: every shard against its manifest, row by row; what is wrong is said with what was expected and found.

Shards of photographs are checked here; who checks shards with stored features is handed in, since their formats are known
above data/.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kaleido_fast.data.check.finding import Finding
from kaleido_fast.data.check.part import PartCheck, ShardPart
from kaleido_fast.data.check.shard import PhotographPartCheck
from kaleido_fast.data.check.tables import check_overlap, check_products, check_vocabulary
from kaleido_fast.data.processes import spread_made
from kaleido_fast.data.shards.manifest import MANIFEST, Manifest, file_digest, folder_fingerprint
from kaleido_fast.progress_bar import ProgressBar

PART = 256  # rows a task of the worker processes


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """What was looked at and how much of it is bad."""

    folder: Path
    photographs: int
    products: int
    bad_rows: int  # photographs with at least one finding
    findings: int
    seconds: float
    kind: str = "photographs"  # what a row is

    def describe(self) -> str:
        """One line for a person."""
        verdict = f"{self.findings:,} findings, {self.bad_rows:,} bad rows" if self.findings else "nothing wrong"
        return (f"{self.folder}: {verdict}; {self.photographs:,} {self.kind} of {self.products:,} products looked at in "
                f"{self.seconds:.0f} s")


def check_folder(
    folder: Path, report: Callable[[str], None], feature_check: Callable[[Path], PartCheck] | None = None, processes: int = 0,
) -> CheckSummary:
    """Check a folder of shards; `report` gets a line for each finding, as it is found.

    Args:
        feature_check: makes, in each worker process, what checks a part of shards with stored features.
        processes: 0: one a core.
    Raises:
        ValueError: there is no readable manifest, or the shards hold stored features and `feature_check` is None.
    """
    started = time.perf_counter()
    manifest = Manifest.read(folder)
    part_check = PhotographPartCheck if manifest.features is None else feature_check
    if part_check is None:
        raise ValueError(f"{folder}: these shards hold stored features; hand check_folder what checks them, FeaturePartCheck "
                         "of kaleido_fast.authors.check_shard")
    count = _Count(folder, report)
    count.add(_check_manifest(manifest))
    count.add(check_vocabulary(folder, manifest))
    ids = {}
    for name in manifest.splits:
        findings, ids[name] = check_products(folder, name, manifest)
        count.add(findings)
    count.add(check_overlap(ids))
    _check_rows(manifest, partial(part_check, folder), processes or os.cpu_count() or 1, count)
    count.add(_check_fingerprint(folder, manifest))
    return CheckSummary(
        folder, sum(sum(entry.samples) for entry in manifest.splits.values()),
        sum(entry.products for entry in manifest.splits.values()), count.rows, count.findings,
        time.perf_counter() - started,
        "photographs" if manifest.features is None else "rows of stored features")


class _Count:
    """Passes findings on and counts them."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder, self.report = folder, report
        self.findings = self.rows = 0

    def add(self, findings: list[Finding]) -> None:
        """Take the findings of a part: no other part has findings of the same rows."""
        for finding in findings:
            self.report(f"{self.folder}/{finding.describe()}")
        self.findings += len(findings)
        self.rows += len({finding.sample for finding in findings} - {None})


def _check_rows(manifest: Manifest, make_check: Callable[[], PartCheck], processes: int, count: _Count) -> None:
    parts = _parts(manifest)
    total = sum(part.stop - part.start for part in parts)
    processes = min(processes, 1 + total // (2 * PART))  # starting one takes longer than looking at a few photographs
    with ProgressBar(total, "data check", "row") as bar:
        for part, findings in zip(parts, spread_made(make_check, parts, processes), strict=True):
            count.add(findings)
            bar.update(part.stop - part.start)


def _parts(manifest: Manifest) -> list[ShardPart]:
    parts = []
    for name, entry in manifest.splits.items():
        first = 0
        for shard, samples in zip(entry.shards, entry.samples, strict=False):
            for start in range(0, samples, PART):
                parts.append(ShardPart(name, shard, samples, first, start, min(start + PART, samples)))
            first += samples
    return parts


def _check_manifest(manifest: Manifest) -> list[Finding]:
    findings = []
    for name, entry in manifest.splits.items():
        if len(entry.shards) != len(entry.samples):
            findings.append(Finding(MANIFEST, f"split '{name}' has {len(entry.shards)} shards and the samples of "
                                              f"{len(entry.samples)}"))
        expected = tuple(f"{name}-{number:06d}" for number in range(len(entry.shards)))
        if entry.shards != expected:
            odd = next(pair for pair in zip(entry.shards, expected, strict=True) if pair[0] != pair[1])
            findings.append(Finding(MANIFEST, f"split '{name}': shard '{odd[0]}' where '{odd[1]}' was expected"))
    return findings


def _check_fingerprint(folder: Path, manifest: Manifest) -> list[Finding]:
    """Every file is there, and together they are those that were written; each later alignment by itself."""
    findings = _compare(folder, manifest.files(), manifest.fingerprint, "the files")
    for name, expected in manifest.aligned.items():
        findings += _compare(folder, manifest.aligned_files(name), expected, f"the alignment '{name}'")
    return findings


def _compare(folder: Path, names: tuple[str, ...], expected: str, what: str) -> list[Finding]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return [Finding(name, "missing; the manifest names it") for name in missing]
    fingerprint = folder_fingerprint({name: file_digest(folder / name) for name in names})
    if fingerprint == expected:
        return []
    return [Finding(MANIFEST, f"fingerprint {fingerprint[:16]}… of {what}, expected {expected[:16]}…: a file was changed "
                              "since they were written")]
