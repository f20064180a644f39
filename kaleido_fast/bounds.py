"""Between what every number among the settings must lie, so that a wrong one is named before anything is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from kaleido_fast.kernels.philox import EVALUATION_EPOCH

BOUNDS: dict[str, tuple[float, float]] = {
    "data.image_size": (1, 4096), "data.itm_hard_share": (0, 1), "data.itm_hard_from": (0, EVALUATION_EPOCH - 1),
    "data.decode_threads": (1, 256), "data.prefetch": (1, 64), "data.max_holes": (0, 1),
    "kaleido.grids": (1, 64), "kaleido.patch_size": (1, 1024), "kaleido.num_grey": (0, 64), "kaleido.num_blank": (0, 64),
    "kaleido.blank_grid": (1, 64), "kaleido.max_masked_tokens": (0, 510), "kaleido.mean": (-1000, 1000),
    "kaleido.std": (1e-6, 1000),
    "model.hidden": (1, 2**16), "model.layers": (1, 1000), "model.heads": (1, 1024), "model.intermediate": (1, 2**20),
    "model.dropout": (0, 0.99), "model.attention_dropout": (0, 0.99), "model.layer_norm_eps": (0, 1),
    "model.initializer_range": (0, 1), "model.max_positions": (1, 2**16), "reference.amlm_epsilon": (0, 1),
    "train.steps": (0, 2**40), "train.epochs": (0, EVALUATION_EPOCH - 1), "train.minutes": (0, 10**7), "train.learning_rate": (0, 1),
    "train.weight_decay": (0, 10), "train.betas": (0, 0.999999), "train.eps": (0, 1), "train.clip_norm": (0, 10**9),
    "train.seed": (0, 2**63 - 1), "train.task_weights": (0, 10**6), "train.validation_samples": (1, 2**40),
    "align.channels": (2, 4096), "align.embedding": (1, 2**16), "align.hidden": (1, 2**16), "align.attention": (1, 2**16),
    "align.dropout": (0, 0.99), "align.place_dropout": (0, 0.99), "align.smoothing": (0, 1),
    "align.coverage": (0, 10**6), "align.look_cost": (0, 100), "align.steps": (0, 2**40), "align.minutes": (0, 10**7),
    "align.micro_batch": (16, 2**16), "align.learning_rate": (0, 1), "align.warmup_steps": (0, 2**40), "align.beam": (1, 1000),
    "align.checkpoint_every": (1, 2**40),
    "align.region_share": (0, 1), "align.covered_share": (1e-6, 1), "align.most_covered": (0, 1),
    "run.timeout_s": (1, 10**7),
}


def check_bounds(sections: Mapping[str, Any]) -> None:
    """Refuse numbers that cannot be (ValueError names the key, what was found and what is allowed)."""
    for key, (least, most) in BOUNDS.items():
        section, name = key.split(".")
        if section not in sections:
            continue
        value = getattr(sections[section], name)
        if not all(least <= number <= most for number in _numbers(value)):  # a NaN lies nowhere
            found = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"{key}={found} must lie in {least:g}..{most:g}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple | dict):
        yield from value.values() if isinstance(value, dict) else value
    else:
        yield value
