"""Making and changing an index: `kaleido-fast index` (SPEC 12).

The parts of a catalogue are shared out over the workers, each kept in parts/ until all are there; then the first worker joins
them, behind what the index holds already, and the whole becomes the index at one moment.
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kaleido_fast.data.shards.manifest import fingerprint
from kaleido_fast.files import cannot_write, require_free
from kaleido_fast.folder_lock import LOCK
from kaleido_fast.options import ADD, Option, OptionError
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.folder import ARRAYS, HEADER, MODEL, NEXT, Entry, Header, read_contents, read_entries, read_header
from kaleido_fast.search.index import require_same_model
from kaleido_fast.search.sources import Embedded, ProductSource
from kaleido_fast.search.writer import Writer
from kaleido_fast.training.run.lock import held_folder
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.share_out import ShardWork, num_samples, share_out

PARTS = "parts"
UNFINISHED = {LOCK, MODEL, PARTS, *(name + NEXT for name in (*ARRAYS, HEADER))}  # what an interrupted run leaves
LISTED = 5  # what is named at the end
AT_ONCE = 4096  # products that are copied from one state of an index to the next


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What was done; counts of the index as it is now."""

    out: Path
    header: Header
    added: int = 0  # products
    were_there: int = 0  # products of the source that the index had already
    removed: int = 0
    photographs: int = 0  # embedded in this run
    seconds: float = 0.0  # that took
    holes: dict[str, str] = field(default_factory=dict)  # photographs that could not be read, and why
    left_out: tuple[str, ...] = ()  # products of which none could be

    def describe(self) -> str:
        """Some lines for a person."""
        header = self.header
        text = (f"{self.out}: {header.products:,} products, {header.photographs:,} photographs, {header.texts:,} texts, "
                f"{header.size} numbers each")
        if self.removed:
            return f"{text}; {self.removed:,} products taken out"
        rate = f" in {self.seconds:.0f} s ({self.photographs / self.seconds:,.0f} a second)" if self.photographs else ""
        text += f"\n{self.added:,} products taken in, {self.photographs:,} photographs embedded{rate}"
        if self.were_there:
            text += f"; {self.were_there:,} products were there already"
        if self.holes:
            named = "; ".join(f"{name}: {reason}" for name, reason in list(self.holes.items())[:LISTED])
            text += f"\n{len(self.holes):,} photographs could not be read and were left out ({named})"
        if self.left_out:
            text += (f"\n{len(self.left_out):,} products have no photograph that can be read and were left out "
                     f"({', '.join(self.left_out[:LISTED])})")
        return text


def build_index(encoder: Encoder, source: ProductSource, out: Path, workers: Workers, *, add: bool = False) -> IndexSummary:
    """Embed the products of `source` that the index does not have; all workers call it. The same call goes on with a run that
    was interrupted.

    Args:
        add: take them into the index that is there; without it there must be none.
    Returns:
        On the first worker what was done; elsewhere an empty summary.
    Raises:
        ValueError: there is an index already, or none to add to, or one of another model; nothing to read from `source`, or
            the folder cannot be written.
    """
    with workers.together():
        _check_out(out, encoder, add)
    with held_folder(out, workers, "index", Option("out")) as require_held:
        with workers.together():
            header = read_header(out) if add else Header(encoder.fingerprint, encoder.size)
            known = _ids(out) if add else set()
            job = _IndexJob(encoder, source, out, _source_number(header, source), require_held)
            parts = source.parts(known)
            if workers.is_first and not add:
                _write_model(encoder, out)
        done = share_out(workers, job, parts)
        summary = IndexSummary(out, header)
        with workers.together():
            if workers.is_first:
                require_held()
                summary = _join(job, parts, header, known, add)
    return replace(summary, photographs=num_samples(done.shards), seconds=done.seconds)


def remove_products(out: Path, ids: Collection[str]) -> IndexSummary:
    """Take products out of an index.

    Raises:
        ValueError: no index there, or products that it does not have; nothing is changed then.
    """
    read_header(out)
    with held_folder(out, Workers(0, 1), "index", Option("out")) as require_held:
        known = _ids(out)
        missing = sorted(set(ids) - known)
        if missing:
            more = f" and {len(missing) - LISTED} others" if len(missing) > LISTED else ""
            raise OptionError(Option("remove"), f": {out} has no product {', '.join(missing[:LISTED])}{more}; nothing was "
                              "taken out")
        header = read_header(out)
        with Writer(out, header) as writer:
            for entry, photographs, text in _held(out):
                if entry.id not in ids:
                    writer.add(entry, photographs, text)
            require_held()
            return IndexSummary(out, writer.commit(), removed=len(set(ids)))


class _Part(NamedTuple):
    """A part as it waits for the others."""

    embeddings: np.ndarray  # (m, E) fp16
    present: np.ndarray  # (m,) bool
    texts: np.ndarray  # (p, E) fp16
    entries: list[Entry]  # p
    holes: dict[str, str]


class _IndexJob:
    """Embeds parts; a file each."""

    name, unit = "index", "photo"

    def __init__(
        self, encoder: Encoder, source: ProductSource, out: Path, number: int, require_held: Callable[[], None]
    ) -> None:
        self.source, self.out, self.number = source, out, number
        self._encoder, self._require_held = encoder, require_held

    def file(self, part: ShardWork) -> Path:
        """Where a part lies; another model, source or set of its products gives another name."""
        recipe = [self._encoder.fingerprint, self.source.source.folder, self.source.source.fingerprint, str(part), self.number]
        return self.out / PARTS / f"{part.name}-{fingerprint(json.dumps(recipe).encode())[:16]}.npz"

    def is_finished(self, shard: ShardWork) -> bool:
        return self.file(shard).is_file()

    def begin(self, todo: Sequence[ShardWork]) -> None:
        try:
            (self.out / PARTS).mkdir(exist_ok=True)
            for file in (self.out / PARTS).glob(".*.writing"):
                file.unlink()
        except OSError as error:
            raise cannot_write(self.out, error, "give another ", Option("out")) from error

    def work(self, shards: Sequence[ShardWork]) -> Iterator[int]:
        for shard in shards:
            holes: dict[str, str] = {}
            batches: list[Embedded] = []
            for batch in self.source.embed(shard, self._encoder, holes):
                batches.append(Embedded(batch.embeddings.astype(np.float16), batch.present))
                yield len(batch.present)
            entries = list(self.source.entries(shard, self.number))
            texts = self._encoder.texts([entry.text for entry in entries]).astype(np.float16)
            self._require_held()
            embeddings, present = (np.concatenate(column) for column in zip(*batches, strict=True))
            self._write(shard, _Part(embeddings, present, texts, entries, holes))

    def read(self, part: ShardWork) -> _Part:
        """Raises ValueError: it is damaged."""
        try:
            with np.load(self.file(part)) as stored:
                lines = stored["lines"].tobytes().splitlines()
                entries = [Entry(**values | {"photographs": tuple(values["photographs"])}) for values in map(json.loads, lines)]
                return _Part(stored["embeddings"], stored["present"], stored["texts"], entries,
                             json.loads(stored["holes"].tobytes()))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise ValueError(f"{self.file(part)}: damaged ({error}); remove it and run the same command again") from None

    def _write(self, shard: ShardWork, part: _Part) -> None:
        file = self.file(shard)
        beside = file.with_name(f".{file.name}.writing")
        lines = b"".join(entry.line() for entry in part.entries)
        try:
            with beside.open("wb") as stream:
                np.savez(stream, embeddings=part.embeddings, present=part.present, texts=part.texts,
                         lines=np.frombuffer(lines, np.uint8), holes=np.frombuffer(json.dumps(part.holes).encode(), np.uint8))
            os.replace(beside, file)
        except OSError as error:
            raise cannot_write(file, error, "make room and run the same command again: finished parts are kept") from error


def _join(job: _IndexJob, parts: Sequence[ShardWork], header: Header, known: Collection[str], add: bool) -> IndexSummary:
    """Make the index of what it holds and of the parts."""
    holes: dict[str, str] = {}
    left_out: list[str] = []
    if job.source.source not in header.sources:
        header = replace(header, sources=(*header.sources, job.source.source))
    with Writer(job.out, header) as writer:
        for product in _held(job.out) if add else ():
            writer.add(*product)
        for entry, embeddings, present, text in _products(job, parts, holes):
            if not present.any():
                left_out.append(entry.id)
                continue
            places = tuple(place for place, there in zip(entry.photographs, present, strict=True) if there)
            writer.add(replace(entry, photographs=places), embeddings[present], text)
        header = writer.commit()
    shutil.rmtree(job.out / PARTS, ignore_errors=True)
    return IndexSummary(job.out, header, added=header.products - len(known), were_there=job.source.num_known, holes=holes,
                        left_out=tuple(left_out))


def _products(
    job: _IndexJob, parts: Sequence[ShardWork], holes: dict[str, str]
) -> Iterator[tuple[Entry, np.ndarray, np.ndarray, np.ndarray]]:
    """Each product of the parts with its photographs (m, E), which of them are there (m,) and its text (E,). Photographs of a
    part's last product may lie in the next part."""
    waiting: deque[tuple[Entry, np.ndarray]] = deque()
    embeddings, present = np.zeros((0, 0), np.float16), np.zeros(0, bool)
    for shard in parts:
        part = job.read(shard)
        holes |= part.holes
        waiting.extend(zip(part.entries, part.texts, strict=True))
        embeddings = np.concatenate([embeddings, part.embeddings]) if len(embeddings) else part.embeddings
        present = np.concatenate([present, part.present])
        start = 0
        while waiting and start + len(waiting[0][0].photographs) <= len(present):
            entry, text = waiting.popleft()
            end = start + len(entry.photographs)
            yield entry, embeddings[start:end], present[start:end], text
            start = end
        embeddings, present = embeddings[start:], present[start:]
    assert not waiting and not len(present), "each photograph is one product's"


def _held(out: Path) -> Iterator[tuple[Entry, np.ndarray, np.ndarray]]:
    """The products of an index: line, photographs (m, E), text (E,)."""
    contents = read_contents(out)
    for start in range(0, contents.header.products, AT_ONCE):
        numbers = np.arange(start, min(start + AT_ONCE, contents.header.products))
        for number, entry in zip(numbers, read_entries(contents, numbers), strict=True):
            first = contents.table["first_photograph"][number]
            yield entry, contents.photographs[first : first + len(entry.photographs)], contents.texts[number]


def _ids(out: Path) -> set[str]:
    return {name.decode() for name in read_contents(out).table["id"].tolist()}


def _source_number(header: Header, source: ProductSource) -> int:
    return header.sources.index(source.source) if source.source in header.sources else len(header.sources)


def _check_out(out: Path, encoder: Encoder, add: bool) -> None:
    if add:
        require_same_model(out, read_header(out), encoder)
    elif (out / HEADER).exists():
        raise OptionError(f"{out}: an index is there already; take more products into it with ", ADD,
                          ", or give another ", Option("out"))
    elif out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= UNFINISHED):
        require_free(out)


def _write_model(encoder: Encoder, out: Path) -> None:
    """Where an interrupted run has left one, it may be another's."""
    shutil.rmtree(out / MODEL, ignore_errors=True)
    encoder.write(out / MODEL)
