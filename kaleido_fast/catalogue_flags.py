"""`prepare --from NAME`: what may stand there, and the flags that each reader of catalogues declares beside its fields."""

import argparse
import dataclasses
import typing
from pathlib import Path
from typing import Any

from kaleido_fast.data.catalogue.product import Catalogue
from kaleido_fast.data.catalogue.readers import READERS
from kaleido_fast.options import Flag, Option, typed_path

KALEIDO_TSV = "kaleido-tsv"  # the authors' feature files: no catalogue, so they are prepared by authors/prepare_tsv.py
SOURCES = (*READERS, KALEIDO_TSV)
FEATURE_FILES = "the authors' feature files, one or several"


@dataclasses.dataclass(frozen=True, slots=True)
class ReaderFlag:
    """A flag that one or several readers take."""

    flag: Flag
    kind: type  # of a value
    several: bool  # whether it takes more than one value
    readers: tuple[str, ...]

    def add_to(self, verb: argparse.ArgumentParser, name: str) -> None:
        readers = "" if len(self.readers) == len(READERS) else f" ({', '.join(self.readers)})"
        verb.add_argument(Option(name).flag, dest=name, type=typed_path if self.kind is Path else self.kind,
                          nargs="+" if self.several else None, action="extend" if self.several else "store",
                          metavar=self.flag.metavar, help=self.flag.sentence.replace("%", "%%") + readers)


def reader_flags() -> dict[str, ReaderFlag]:
    """The flags of all readers by their field's name, as the fields' annotations say."""
    flags: dict[str, ReaderFlag] = {}
    for reader, catalogue in READERS.items():
        for name, hint in typing.get_type_hints(catalogue, include_extras=True).items():
            kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
            several = typing.get_origin(kind) is tuple
            for flag in notes:
                readers = (*(flags[name].readers if name in flags else ()), reader)
                flags[name] = ReaderFlag(flag, typing.get_args(kind)[0] if several else kind, several, readers)
    return flags


def catalog_help() -> str:
    """What --catalog names, for each reader."""
    return "; ".join(f"{name}: {what}" for name, what in (
        *((name, reader.CATALOG_IS) for name, reader in READERS.items()), (KALEIDO_TSV, FEATURE_FILES)))


def add_reader_flags(verb: argparse.ArgumentParser) -> None:
    """Declare the readers' flags."""
    for name, flag in reader_flags().items():
        flag.add_to(verb, name)


def given_flags(options: argparse.Namespace, *takers: Any) -> dict[str, Any]:
    """The flags of `prepare` that were given, by their fields.

    Args:
        takers: the dataclasses that take them.
    Raises:
        ValueError: none of them has a field for a flag.
    """
    flags = {name: value for name, value in vars(options).items() if name not in ("run", "verb", "source")}
    taken = {field.name for taker in takers for field in dataclasses.fields(taker)}
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given:
        if name not in taken:
            listed = ", ".join(Option(other).flag for other in flags if other in taken)
            raise ValueError(f"{Option(name).flag}: --from {options.source} does not take it; it takes {listed}")
    return given


def catalogue_of(source: str, given: dict[str, Any]) -> Catalogue:
    """The catalogue that the flags name; its flags are taken out of `given`.

    Raises:
        ValueError: a flag that the reader needs is not given, or --catalog names several files where it reads one.
    """
    reader = READERS[source]
    fields = {field.name: given.pop(field.name) for field in dataclasses.fields(reader) if field.name in given}
    for field in dataclasses.fields(reader):
        if field.default is dataclasses.MISSING and field.name not in fields:
            sentence = reader_flags()[field.name].flag.sentence
            raise ValueError(f"{Option(field.name).flag}: not given; --from {source} needs it: {sentence}")
    files = fields["catalog"]
    if _reads_one(source) and len(files) > 1:
        several = ", ".join(name for name in SOURCES if not _reads_one(name))
        raise ValueError(f"--catalog: {len(files)} files, but --from {source} reads one; several go with --from {several}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return reader(**values | {"catalog": files[0] if _reads_one(source) else tuple(files)})


def _reads_one(source: str) -> bool:
    """Whether --catalog names one file or folder."""
    return source in READERS and typing.get_type_hints(READERS[source])["catalog"] is Path
