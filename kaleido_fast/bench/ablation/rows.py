"""Rows of an ablation: YAML files that are laid over one base config, in order of their names.

    ablation: {group: masking, title: guided (AGM), needs: alignment}
    kaleido: {masking: guided}

The first row of a group is what its others are compared with.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NEEDS = {
    "": "",
    "alignment": "needs an alignment: run `kaleido-fast align` and give data.alignment=NAME",
    "unlocked": "needs shards of photographs that are not locked onto the product, which `prepare` does not write",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row."""

    name: str  # of its file
    group: str
    title: str
    needs: str  # a key of NEEDS
    settings: tuple[str, ...]  # `key=value` laid over the base config


def read_rows(folder: Path, names: Sequence[str] = ()) -> list[Row]:
    """The rows of a folder, or those of these names.

    Raises:
        ValueError: no row; no such name; a file that is no row.
    """
    rows = [_read_row(file) for file in sorted(folder.glob("*.yaml"))]
    if not rows:
        raise ValueError(f"{folder}: no *.yaml, expected rows of an ablation; configs/ablations holds the paper's")
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise ValueError(f"{folder}: no row '{name}'; it has {', '.join(known)}")
    return [row for row in rows if not names or row.name in names]


def _read_row(file: Path) -> Row:
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    about = values.pop("ablation", None) if isinstance(values, dict) else None
    if not isinstance(about, dict) or not {"group", "title"} <= about.keys() <= {"group", "title", "needs"}:
        raise ValueError(f"{file}: expected a section such as 'ablation: {{group: masking, title: random masking}}', found "
                         f"{about!r}")
    needs = about.get("needs", "")
    if needs not in NEEDS:
        raise ValueError(f"{file}: ablation.needs={needs}: unknown; use {' or '.join(filter(None, NEEDS))}")
    settings = tuple(f"{section}.{key}={value if isinstance(value, str) else json.dumps(value)}"
                     for section, keys in values.items() for key, value in _keys(file, section, keys).items())
    return Row(file.stem, str(about["group"]), str(about["title"]), needs, settings)


def _keys(file: Path, section: str, keys: Any) -> dict[str, Any]:
    if not isinstance(keys, dict):
        raise ValueError(f"{file}: {section}: expected a section such as 'kaleido: {{tasks: []}}', found {keys!r}")
    return keys
