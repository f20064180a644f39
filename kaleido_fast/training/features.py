"""The splits of a run, and whether its settings and its shards agree on where patch features come from."""

from pathlib import Path

from kaleido_fast.config import Config
from kaleido_fast.data.manifest import MANIFEST, Manifest
from kaleido_fast.data.shards import Split
from kaleido_fast.data.stored_plan import plan_dtype
from kaleido_fast.data.stored_samples import StoredSamples, require_plan, require_width
from kaleido_fast.kernels.geometry import GRIDS


def open_splits(config: Config) -> tuple[Split, Split]:
    """The splits that a run trains and validates on.

    Raises:
        ValueError: no shards, a split without samples, or settings that do not go with what the shards hold.
    """
    shards = Path(config.data.shards)
    if (shards / MANIFEST).is_file():
        require_plan(shards, Manifest.read(shards))  # before a split of theirs is found to be empty
    splits = Split.open(config.data.shards, "train"), Split.open(config.data.shards, "validation")
    for split in splits:
        split.require_alignment(config.data.alignment)
        _check_features(config, split)
    return splits


def _check_features(config: Config, split: Split) -> None:
    features, model = split.manifest.features, config.model
    if model.features == "computed":
        split.manifest.require_photographs(split.folder, "model.features=computed")
        return
    StoredSamples(split)  # opens all stores
    require_width(split, config.data.max_tokens)
    where = f"the features of {split.folder} were made by the authors"
    slots = {name: plan_dtype()[name].shape[0] for name in ("grey_slots", "blank_slots")}
    for key, found, needed in (
        ("model.patch_encoder", model.patch_encoder, "none"),
        ("model.patch_features", model.patch_features, features.num_features),
        ("model.locations", model.locations, "pixels"),
        ("kaleido.grids", list(config.kaleido.grids), list(GRIDS)),
        ("kaleido.blank_grid", config.kaleido.blank_grid, GRIDS[-1]),
        ("kaleido.num_grey", config.kaleido.num_grey, slots["grey_slots"]),
        ("kaleido.num_blank", config.kaleido.num_blank, slots["blank_slots"]),
        ("data.itm_hard_share", config.data.itm_hard_share, 0),
        ("data.itm_negatives", config.data.itm_negatives, "random"),
    ):
        if found != needed:
            raise ValueError(f"{key}={found}: {where}, with their texts and masks; set {key}={needed}")
