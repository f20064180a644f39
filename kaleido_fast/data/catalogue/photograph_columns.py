"""Photographs that a column of a table names: paths under a folder."""

import ast
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kaleido_fast.data.catalogue.cell_text import is_nothing
from kaleido_fast.data.catalogue.photograph_files import NearMisses, photograph_names
from kaleido_fast.data.catalogue.product import PhotographFile, PhotographSource

SEPARATORS = "\n|;,"  # between the paths of a cell, the first of them that stands there


class NamedPhotographs:
    """The files that cells name: paths under a folder, or names of files anywhere in it."""

    def __init__(self, images: Path) -> None:
        self.images = images
        self._by_name: dict[str, list[str]] | None = None

    def of(self, cell: str) -> tuple[list[PhotographSource], list[str]]:
        """A cell's photographs, and what is said of each that is not there."""
        files: list[PhotographSource] = []
        missing = []
        for path in paths_of(cell, self.images):
            file = self._file(path)
            if file is None:
                missing.append(f"{path}{self._why_not(path)}")
            else:
                files.append(PhotographFile(file))
        return files, missing

    def _file(self, path: str) -> Path | None:
        """The file under the folder; one of its name where it lies deeper, and there is but one."""
        if ".." in PurePosixPath(path).parts or not (self.images / path).is_relative_to(self.images):
            return None
        if (self.images / path).is_file():
            return self.images / path
        names = self._names().get(PurePosixPath(path).name, [])
        fitting = [name for name in names if name.endswith(f"/{path}")] or names
        return self.images / fitting[0] if len(fitting) == 1 else None

    def _names(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for name in photograph_names(self.images):
                self._by_name.setdefault(PurePosixPath(name).name, []).append(name)
        return self._by_name

    def _why_not(self, path: str) -> str:
        if urlsplit(path).scheme in ("http", "https"):
            return ", a web address; fetch the photographs first and name their files"
        several = len(self._names().get(PurePosixPath(path).name, []))
        if several > 1:
            return f", of which {several} lie in sub-folders of {self.images}; give its whole path there"
        return NearMisses(name for names in self._names().values() for name in names).of(
            PurePosixPath(path).stem) or f", looked for under {self.images}"


def paths_of(cell: str, images: Path) -> list[str]:
    """The paths that a cell names: one, several behind each other, or a list as JSON and Python write it."""
    cell = cell.strip()
    if not cell or is_nothing(cell):
        return []
    if cell[0] == "[":
        try:
            listed = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(path, str) for path in listed):
            return [path.strip() for path in listed if path.strip()]
    separator = next((letter for letter in SEPARATORS if letter in cell), "")
    if not separator or (len(cell) < 1000 and "\n" not in cell and (images / cell).is_file()):
        return [cell]
    return [path.strip() for path in cell.split(separator) if path.strip()]


def id_of_path(path: str) -> str:
    """A product's id where the table has none: its first photograph's path without ending, folders joined by "_"."""
    return PurePosixPath(path).with_suffix("").as_posix().lstrip("./").replace("/", "_") if path else ""
