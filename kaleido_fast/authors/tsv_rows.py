"""One row of the authors' feature files: cells become arrays, each width, range and number checked.

Tab-separated text without header or quotes; a list is comma-separated inside its cell. A row that cannot be used raises
`BadRow`, which says the column, what was found and what was expected.
"""

import contextlib
import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaleido_fast.authors.tsv_columns import FEATURES, LOCATION, LOCATIONS, MISPRINTED, Column, TsvLayout
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.data.store.feature_store import MOST_FEATURES

MOST_ID_BYTES = 200
CELL_SHOWN = 40  # letters of a wrong cell in a message


class BadRow(ValueError):
    """A row that cannot be used.

    Args:
        reason: what rows are counted by, such as "img_rotate_gt: out of range".
        what: what was found and what was expected.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(f"{reason.partition(':')[0]}: {what}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TsvRow:
    """One row, checked."""

    values: dict[str, Any]  # by column: int64 or float32 (width,), or str
    num_features: int  # F

    @property
    def length(self) -> int:
        """Text tokens with [CLS] and [SEP]."""
        return int(self.values["input_mask"].sum())

    @property
    def features(self) -> np.ndarray:
        """(rows, F) float32: the positions, then the clean features of greyed slots where the file has them."""
        cells = [self.values[column.name] for column in FEATURES]
        if "img_grey_mask_gt" in self.values:
            cells.append(self.values["img_grey_mask_gt"])
        return np.concatenate(cells).reshape(-1, self.num_features)

    @property
    def locations(self) -> np.ndarray:
        """(K, 5) int32."""
        return np.concatenate([self.values[column.name] for column in LOCATIONS]).reshape(-1, LOCATION).astype(np.int32)

    @property
    def photograph(self) -> str:
        """A name of the photograph, 32 hex digits: of its level 5, the one that no transform touches in these files."""
        return hashlib.sha256(self.values[FEATURES[-1].name].tobytes()).hexdigest()[:32]


def parse_row(line: bytes, layout: TsvLayout, vocabulary: Vocabulary) -> TsvRow:
    """Parse and check one line, without its line end.

    Raises:
        BadRow: it cannot be used.
    """
    cells = line.split(b"\t")
    if len(cells) != len(layout.columns):
        raise BadRow("number of columns", f"{len(cells)}, expected {len(layout.columns)} of a {layout.name} file")
    by_name = dict(zip((column.name for column in layout.columns), cells, strict=True))
    num_features = by_name[FEATURES[0].name].count(b",") + 1
    if num_features > MOST_FEATURES:
        raise BadRow(f"{FEATURES[0].name}: number of values", f"F = {num_features:,}, at most {MOST_FEATURES:,}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's, of a cell whose end it cannot read
        values = {column.name: _cell(column, by_name[column.name], vocabulary)
                  for column in layout.columns if _check_width(column, by_name[column.name], num_features)}
    row = TsvRow(values, num_features)
    _check_text(row, vocabulary)
    if layout.has_plan:
        _check_plan(row)
    return row


def _check_width(column: Column, cell: bytes, num_features: int) -> bool:
    """Refuse a cell with another number of values; whether the column is read at all."""
    if column.kind == "text":
        return True
    width = column.width * (num_features if column.per_feature else 1)
    num_values = cell.count(b",") + 1 if cell.strip() else 0
    if num_values != width:
        source = f" ({column.width} x F = {num_features})" if column.per_feature else ""
        misprint = "; their published schema says 35, a misprint: 9 patches have 45 numbers" \
            if column.name == MISPRINTED and num_values == 35 else ""
        raise BadRow(f"{column.name}: number of values", f"{num_values:,} values, expected {width:,}{source}{misprint}")
    return column.kind != "unread"


def _cell(column: Column, cell: bytes, vocabulary: Vocabulary) -> np.ndarray | str:
    if column.kind == "text":
        return _text(column, cell)
    values = _numbers(column, cell)
    if column.kind == "float":
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise BadRow(f"{column.name}: not finite", f"value {place + 1} is {values[place]}, expected a finite number")
        return values
    most = vocabulary.size - 1 if column.words else column.most
    odd = np.flatnonzero((values < column.least) | (values > most))
    if len(odd):
        raise BadRow(f"{column.name}: out of range",
                     f"value {odd[0] + 1} is {values[odd[0]]}, expected {column.least}..{most:,}")
    return values


def _numbers(column: Column, cell: bytes) -> np.ndarray:
    """(width,) int64 or float32; a cell that numpy would read in part only is refused."""
    with contextlib.suppress(ValueError, DeprecationWarning):  # the warning is an error here, see `parse_row`
        values = np.fromstring(cell, np.int64 if column.kind == "int" else np.float32, sep=",")
        if len(values) == cell.count(b",") + 1:  # numpy passes over a comma at the end
            return values
    kind, expected = (int, "an integer") if column.kind == "int" else (float, "a number")
    texts = cell.split(b",")
    place = next((place for place, text in enumerate(texts) if not _is_number(text, kind)), 0)
    shown = texts[place][:CELL_SHOWN].decode("utf-8", "backslashreplace")
    raise BadRow(f"{column.name}: not a number", f"value {place + 1} is '{shown}', expected {expected}")


def _is_number(text: bytes, kind: type) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return b"_" not in text


def _text(column: Column, cell: bytes) -> str:
    try:
        text = cell.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"{column.name}: not UTF-8", f"byte {error.start + 1} is not UTF-8") from None
    if column.name != "prod_desc" and (not text.strip() or not text.isprintable() or len(cell) > MOST_ID_BYTES):
        raise BadRow(f"{column.name}: unusable", f"'{text[:CELL_SHOWN]}', expected 1..{MOST_ID_BYTES} printable bytes")
    return text


def _check_text(row: TsvRow, vocabulary: Vocabulary) -> None:
    """[CLS] words [SEP], then padding: the mask is ones, then zeros."""
    ids, mask, length = row.values["input_ids"], row.values["input_mask"], row.length
    if length < 2 or not mask[:length].all():
        raise BadRow("input_mask: shape", f"{length} ones in places 1..{int(mask.nonzero()[0].max(initial=-1)) + 1}, "
                                          "expected at least 2, then zeros alone")
    if (ids[0], ids[length - 1]) != (vocabulary.cls_id, vocabulary.sep_id):
        raise BadRow("input_ids: first and last", f"{ids[0]} and {ids[length - 1]} of {length} tokens, expected [CLS] "
                                                  f"{vocabulary.cls_id} and [SEP] {vocabulary.sep_id} of the vocabulary")
    if (ids[length:] != vocabulary.pad_id).any():
        raise BadRow("input_ids: behind the last", f"ids behind the {length} tokens of input_mask, expected [PAD] "
                                                   f"{vocabulary.pad_id} alone")


def _check_plan(row: TsvRow) -> None:
    """Masked tokens lie in the text, and no slot is greyed or blanked twice."""
    weights, positions = row.values["masked_lm_weights"], row.values["masked_lm_positions"]
    if not np.isin(weights, (0, 1)).all():
        raise BadRow("masked_lm_weights: not 0 or 1", f"{weights[~np.isin(weights, (0, 1))][0]:g}, expected 0 or 1")
    masked = positions[weights == 1]
    if (masked >= row.length).any() or len(np.unique(masked)) != len(masked):
        raise BadRow("masked_lm_positions: unusable", f"{masked.tolist()} of weight 1, expected different places among "
                                                      f"the {row.length} tokens")
    for name in ("img_grey_lm_ids", "img_blank_lm_ids"):
        slots = row.values[name].tolist()
        if len(set(slots)) != len(slots):
            raise BadRow(f"{name}: repeated", f"{slots}, expected different slots")
