"""The columns of the authors' feature files, as tables: three layouts, told apart by their number of columns.

T = 64 tokens, M = 10 masked ones; level n has n * n patches of F features and of 5 location numbers each. F is what the
rotation column has (2,048 in the published files).
"""

from dataclasses import dataclass
from typing import Literal

from kaleido_fast.kernels.geometry import GRIDS

TOKENS = 64  # T, with [CLS] and [SEP]
MASKED = 10  # M
GREYED, BLANKED = 2, 3
LOCATION = 5  # x1, x2, y1, y2, w*h
MOST_PLACE = 1 << 24  # of a location's numbers: whole numbers up to here are exact in fp32
MOST_CLASS = 9999
LEVELS = ("rotation", "jigsaw", "camouflage", "grey_mask", "blank_mask")  # of grids 1 to 5, in the authors' names
MISPRINTED = "img_loc_position_camouflage"  # the published schema says 35 numbers; 9 patches have 45

Kind = Literal["int", "float", "text", "unread"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `width` values in a cell, `width` x F where it holds features."""

    name: str
    kind: Kind
    width: int = 1
    per_feature: bool = False
    least: int = 0  # of an int column, inclusive
    most: int = 0
    words: bool = False  # token ids: the most is the vocabulary's last


@dataclass(frozen=True, slots=True)
class TsvLayout:
    """One kind of file."""

    name: Literal["pretraining", "retrieval", "category"]
    columns: tuple[Column, ...]

    @property
    def num_rows(self) -> int:
        """Feature rows of a sample: the positions, and in pre-training files the clean features of the greyed slots."""
        return sum(column.width for column in self.columns if column.per_feature)

    @property
    def has_plan(self) -> bool:
        """Whether its rows say what was masked, turned, moved and greyed."""
        return self.name == "pretraining"


FEATURES = tuple(
    Column(f"img_feature_convert_{level}", "float", grid * grid, per_feature=True)
    for level, grid in zip(LEVELS, GRIDS, strict=True))
LOCATIONS = tuple(
    Column(f"img_loc_position_{level}", "int", LOCATION * grid * grid, most=MOST_PLACE)
    for level, grid in zip(LEVELS, GRIDS, strict=True))
_TEXT = (
    Column("input_ids", "int", TOKENS, words=True),
    Column("input_mask", "int", TOKENS, most=1),
    Column("segment_ids", "int", TOKENS, most=0),
)
_MASKED_WORDS = (
    Column("masked_lm_positions", "int", MASKED, most=TOKENS - 1),
    Column("masked_lm_ids", "int", MASKED, words=True),
    Column("masked_lm_weights", "float", MASKED),
)
_IMAGE_MASK = Column("image_mask", "unread", sum(grid * grid for grid in GRIDS))
_MATCH = Column("nx_sent_labels", "int", most=1)
_IDS = (Column("image_prod_id", "text"), Column("prod_img_id", "text"))
_CLASSES = (
    Column("img_category", "text"), Column("img_category_id", "int", most=MOST_CLASS),
    Column("img_subcategory", "text"), Column("img_subcategory_id", "int", most=MOST_CLASS),
)

PRETRAINING = TsvLayout("pretraining", (
    *_TEXT, *_MASKED_WORDS, *FEATURES, _IMAGE_MASK, *LOCATIONS,
    Column("img_subtasks_flag", "unread"),
    Column("img_grey_lm_ids", "int", GREYED, most=GRIDS[3] ** 2 - 1),
    Column("img_blank_lm_ids", "int", BLANKED, most=GRIDS[4] ** 2 - 1),
    Column("img_rotate_gt", "int", most=3),
    Column("img_jigsaw_gt", "int", most=23),
    Column("img_camouflage_gt", "int", most=8),
    Column("img_grey_mask_gt", "float", GREYED, per_feature=True),
    _MATCH,
))
_PRODUCT_TEXT = (Column("text_prod_id", "text"), *_TEXT, Column("prod_desc", "text"))
RETRIEVAL = TsvLayout("retrieval", (*_PRODUCT_TEXT, _MATCH, *_IDS, *FEATURES, _IMAGE_MASK, *LOCATIONS))
CATEGORY = TsvLayout("category", (*_PRODUCT_TEXT, *_IDS, *FEATURES, _IMAGE_MASK, *LOCATIONS, *_CLASSES))
LAYOUTS = {len(layout.columns): layout for layout in (PRETRAINING, RETRIEVAL, CATEGORY)}
