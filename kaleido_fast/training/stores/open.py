"""The splits of a run, and whether its settings and its shards agree on where patch features come from."""

from pathlib import Path

from kaleido_fast.authors.feature_batches import FromFeatureFiles
from kaleido_fast.authors.feature_samples import FeatureSamples, require_plan, require_width
from kaleido_fast.authors.fixed_plan import BLANK, FILE_TASKS, GREY
from kaleido_fast.data.batches.field_draw import require_fields
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.from_store import FromStore
from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.data.shards.manifest import MANIFEST, Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import FeatureStore
from kaleido_fast.data.store.photograph_rows import TURNED_GRID
from kaleido_fast.data.store.photograph_store import PhotographStore, store_file, store_folder
from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import active_tasks, stored_rows
from kaleido_fast.model.patch_encoders.build import patch_encoder_kind
from kaleido_fast.model.task_table import CONTRAST, loss_weight
from kaleido_fast.options import PREPARE_FEATURE_FILES, OptionError
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.stores.recipe import WEIGHTS, check_recipe, store_recipe, weights_fingerprint


def open_splits(config: StepConfig) -> tuple[Split, Split]:
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
        require_fields(split, config.data)
        _check_features(config, split)
    return splits


def open_source(config: StepConfig, split: Split) -> BatchSource:
    """Where the batches of a split come from: its photographs, or under `model.features=stored` the store, or the features
    that its shards hold themselves.

    Raises:
        ValueError: there is no store, or it was made with other settings (names the first difference); computed features of
            shards without photographs.
    """
    if config.model.features == "computed":
        split.manifest.require_photographs(split.folder, "model.features=computed")
        return FromPhotographs(split)
    if split.manifest.features is not None:
        return FromFeatureFiles(split)
    if not patch_encoder_kind(config.model.patch_encoder).makes_features:
        raise OptionError(f"{split.folder}: these shards hold photographs and no stored features; set model.features=computed "
                          "and another model.patch_encoder, or give shards that ", PREPARE_FEATURE_FILES, " made")
    folder, recipe, rows = store_folder(config.data), store_recipe(config, split.manifest), stored_rows(config.kaleido)
    for task in active_tasks(config.kaleido):
        if not rows.cover(task.rule):
            raise ValueError(f"kaleido.tasks: {task.name} turns the patches of grid {task.grid}, a feature store holds turns "
                             f"of grid {TURNED_GRID} alone; set model.features=computed or take it out of kaleido.tasks")
    for shard in split.shards:  # the settings first: they decide how many rows a store has
        file = store_file(folder, shard)
        if file.is_file():
            check_recipe(config, FeatureStore(file), recipe)
    return FromStore(PhotographStore(split, folder, rows, config.data.pin_store))


def check_weights(config: StepConfig, source: BatchSource, model: KaleidoBertModel) -> None:
    """Refuse (ValueError) a store that was made with other weights than those of the model's patch encoder."""
    if isinstance(source, FromStore):
        check_recipe(config, source.store.stores[0], {WEIGHTS: weights_fingerprint(model.patch_encoder)})


def _check_features(config: StepConfig, split: Split) -> None:
    features, model = split.manifest.features, config.model
    if model.features == "computed":
        split.manifest.require_photographs(split.folder, "model.features=computed")
        return
    if features is None:
        return  # `open_source` compares the store
    FeatureSamples(split)  # opens all stores
    require_width(split, config.data.max_tokens)
    where = f"the features of {split.folder} were made by the authors"
    for key, actual, needed in (
        ("model.patch_encoder", model.patch_encoder, "none"),
        ("model.patch_features", model.patch_features, features.num_features),
        ("model.locations", model.locations, "pixels"),
        ("kaleido.grids", list(config.kaleido.grids), list(GRIDS)),
        ("kaleido.blank_grid", config.kaleido.blank_grid, BLANK.grid),
        ("kaleido.num_grey", config.kaleido.num_grey, GREY.num_slots),
        ("kaleido.num_blank", config.kaleido.num_blank, BLANK.num_slots),
        ("data.itm_hard_share", config.data.itm_hard_share, 0),
        ("data.itm_negatives", config.data.itm_negatives, "random"),
        ("train.task_weights.itc", loss_weight(config.train.task_weights, CONTRAST), 0),
    ):
        if actual != needed:
            raise ValueError(f"{key}={actual}: {where}, with their texts and masks; set {key}={needed}")
    for task in active_tasks(config.kaleido):
        if task.rule not in FILE_TASKS:
            raise ValueError(f"kaleido.tasks: {task.name}: {where}, who had no such task; take it out of kaleido.tasks")
