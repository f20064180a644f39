"""The authors' config.json into our settings."""

from collections.abc import Mapping
from typing import Any

from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings

TEXT_LENGTH = 64  # theirs, where the config is silent
WORD_ROWS = 64  # our word table is padded to a multiple of it
# What our table of tasks fixes and their config may only repeat.
FIXED = {
    "img_rotation_seq_len": 1, "img_jigsaw_seq_len": 4, "img_camouflage_seq_len": 9, "img_greymask_seq_len": 16,
    "img_blankmask_seq_len": 25, "img_rotation_label_num": 4, "img_jigsaw_label_num": 24, "img_camouflage_label_num": 9,
}
READ = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "initializer_range", "max_position_embeddings", "patch_feature_size",
    "masked_greymask_patch_num", "masked_blankmask_patch_num", "vocab_size",
)


def settings_of_config(config: Mapping[str, Any]) -> tuple[ModelSettings, KaleidoSettings, VocabularySettings]:
    """The same from their config.json alone; raises ValueError for a key."""
    _check_config(config)
    model = ModelSettings(
        hidden=config["hidden_size"], layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"], dropout=config["hidden_dropout_prob"],
        attention_dropout=config["attention_probs_dropout_prob"], initializer_range=config["initializer_range"],
        max_positions=config["max_position_embeddings"], activation="gelu_tanh", layer_norm_eps=1e-12, locations="pixels",
        features="stored", patch_encoder="none", patch_features=config["patch_feature_size"],
    )
    kaleido = KaleidoSettings(
        num_grey=config["masked_greymask_patch_num"], num_blank=config["masked_blankmask_patch_num"])
    size = config["vocab_size"]
    return model, kaleido, VocabularySettings(size, -(-size // WORD_ROWS) * WORD_ROWS)


def text_length(config: Mapping[str, Any]) -> int:
    """Tokens of their texts; raises ValueError for what is no number of tokens."""
    length = config.get("text_seq_len", TEXT_LENGTH)
    _check_number("text_seq_len", length)
    return length


def _check_config(config: Mapping[str, Any]) -> None:
    missing = [key for key in READ if key not in config]
    if missing:
        raise ValueError(f"authors' config: no {', '.join(missing)}; expected the config.json of their checkpoint")
    for key in READ:
        _check_number(key, config[key])
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise ValueError(f"authors' config: {key}={config[key]}, only {value} is supported")
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(f"authors' config: hidden_act={activation}, only gelu is supported (theirs: by tanh)")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ValueError(f"authors' config: hidden_size={config['hidden_size']} must be a multiple of num_attention_heads="
                         f"{config['num_attention_heads']}")


def _check_number(key: str, value: Any) -> None:
    """Refuse what is no number, no whole one where a size is meant, or not above zero where there must be something."""
    whole = not key.endswith(("_prob", "_range"))
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"authors' config: {key}={value!r}, expected a {'whole ' if whole else ''}number")
    if not (0 < value < 2**31 if whole else 0 <= value < 1):
        raise ValueError(f"authors' config: {key}={value} must {'be at least 1' if whole else 'lie in 0..1'}")
