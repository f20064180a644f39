"""The root of the settings: YAML files and `key=value`, typed and strict.

Each component's own settings stand beside the component; this module joins them, reads them and says what is wrong.
"""

import dataclasses
import difflib
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import TypeAdapter, ValidationError

from kaleido_fast.alignment.settings import AlignSettings
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.finetune.settings import FinetuneSettings
from kaleido_fast.kernels.embed_inputs import MAX_HIDDEN
from kaleido_fast.kernels.plan_rules import MAX_TOKENS
from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.model.check import check_model
from kaleido_fast.model.settings import InitSettings, KaleidoSettings, ModelSettings, ReferenceSettings
from kaleido_fast.model.task_table import losses
from kaleido_fast.options import MOVED_SHARDS, OptionError, typed_path
from kaleido_fast.settings import Decides, Free, absolute, check_sections, settings_of, with_absolute_paths
from kaleido_fast.tasks.settings import EvalSettings
from kaleido_fast.training.settings import RunSettings, TrainSettings

SHORT = {"task": "finetune.task"}  # what may be typed in place of a key


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a run is made of; saved with it as config.yaml."""

    data: DataSettings = field(default_factory=DataSettings)
    kaleido: KaleidoSettings = field(default_factory=KaleidoSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    init: InitSettings = field(default_factory=InitSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    align: Annotated[AlignSettings, Free()] = field(default_factory=AlignSettings)
    eval: Annotated[EvalSettings, Free()] = field(default_factory=EvalSettings)
    run: Annotated[RunSettings, Free()] = field(default_factory=RunSettings)


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file, lay `key=value` over it and check the whole.

    Raises:
        ValueError: the file cannot be read; a key is unknown; a value has the wrong type; two values do not go together.
    """
    return build_config(_read_yaml(typed_path(path)), overrides)


def build_config(values: dict[str, typing.Any], overrides: typing.Sequence[str] = ()) -> Config:
    """A checked Config from nested dicts with `key=value` laid over (in place). Raises ValueError as `load_config` does."""
    for override in overrides:
        _lay_over(values, override)
    _refuse_unknown(values, Config, prefix="")
    try:
        config = TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(problem) for problem in error.errors())) from None
    check_config(config)
    return with_absolute_paths(config)


def load_run_config(run: str | Path, overrides: typing.Sequence[str] = (), *, needs_shards: bool = False) -> Config:
    """The settings of the run in a folder, with `key=value` laid over.

    Args:
        needs_shards: whether its shards must be there.
    Raises:
        ValueError: the folder is not a run, its shards are not where they were, or as `load_config` does.
    """
    return _load_from(run, "config.yaml", "pretrain", overrides, needs_shards)


def load_align_config(run: str | Path, overrides: typing.Sequence[str] = (), *, needs_shards: bool = False) -> Config:
    """The same of a folder that `kaleido-fast align` wrote."""
    return _load_from(run, "align.yaml", "align", overrides, needs_shards)


def _load_from(run: str | Path, name: str, verb: str, overrides: typing.Sequence[str], needs_shards: bool) -> Config:
    file = typed_path(run) / name
    if not file.is_file():
        raise ValueError(f"{run}: no {name}, so not a run of {verb}; give a folder that `kaleido-fast {verb}` wrote")
    config = _read_kept(file, overrides)
    shards = config.data.shards
    if needs_shards and shards and not Path(shards).is_dir():
        kept = (_read_yaml(file).get("data") or {}).get("shards", "")
        typed = f", which is '{kept}' of {name} seen from the current folder" if kept != shards == absolute(kept) else ""
        raise OptionError(f"{run}: its shards are not there any more: data.shards={shards}{typed}; give ", MOVED_SHARDS,
                          ", the folder where they lie now")
    return config


def _read_kept(file: Path, overrides: typing.Sequence[str]) -> Config:
    """The settings that a run was made with, `key=value` laid over.

    A run may be older than the bounds of a setting that decided nothing of it, such as those of `eval`. It is used with that
    setting's default, which is said; what is laid over is held to the bounds of today.

    Raises:
        ValueError: as `load_config`.
    """
    try:
        return load_config(file, overrides)
    except ValueError:
        kept = _read_yaml(file)
        changed = _take_defaults(kept)
        config = build_config(kept, overrides)
        for change in changed:
            print(f"{file}: {change}", file=sys.stderr)
        return config


def _take_defaults(values: dict[str, typing.Any]) -> list[str]:
    """Take out values that are out of bounds and decided nothing of what was trained or made; a line about each."""
    changed = []
    for setting in settings_of(Config):
        name, _, key = setting.key.partition(".")
        section = values.get(name)
        if setting.mark(Free) is None or setting.mark(Decides) or not isinstance(section, dict) or key not in section:
            continue
        try:
            value = TypeAdapter(setting.kind).validate_python(section[key])
            check_sections(**{name: dataclasses.replace(getattr(Config(), name), **{key: value})})
        except ValidationError:
            continue  # of another type: said by whoever reads the rest
        except ValueError as error:
            changed.append(f"{error}; its default, {setting.default}, is taken instead")
            del section[key]
    return changed


def check_config(config: Config) -> None:
    """Refuse values that are well typed and still cannot work together (ValueError, naming the keys)."""
    check_sections(**{name: getattr(config, name) for name in typing.get_type_hints(Config)})
    check_model(config.model, config.kaleido, config.data)
    on_cuda, model, data = config.run.device == "cuda", config.model, config.data
    _require(not on_cuda or data.max_tokens <= MAX_TOKENS,
             f"data.max_tokens={data.max_tokens} must be at most {MAX_TOKENS} with run.device=cuda; set it lower")
    _require(not on_cuda or (model.hidden % 8 == 0 and model.hidden <= MAX_HIDDEN),
             f"model.hidden={model.hidden} must be a multiple of 8 up to {MAX_HIDDEN:,} with run.device=cuda")
    _check_attention(model, config.train, config.run)
    _require(model.itc_dim > 0 or not config.train.contrasts, "train.task_weights: itc needs model.itc_dim above 0, found 0; "
             "128 suits the demo's shape, 256 the base shape")
    _require(not model.itc_dim or config.train.contrasts, f"model.itc_dim={model.itc_dim}: nothing trains these embeddings, "
             "found no train.task_weights.itc above 0; set one, 2 is usual, or model.itc_dim=0")
    _require(data.itm_negatives != "mined" or config.train.contrasts, "data.itm_negatives=mined: contrast finds them, and "
             "train.task_weights has no itc above 0; give it a weight such as 2, or set data.itm_negatives=random")
    for key in ("task_weights", "losses_on_mismatched"):
        for name in getattr(config.train, key):
            _require(name in losses(), f"train.{key}: unknown task '{name}'{_nearest(name, losses())}")


def _check_attention(model: ModelSettings, train: TrainSettings, run: RunSettings) -> None:
    _require(model.attention in ("auto", "sdpa") or run.device != "cpu",
             f"model.attention={model.attention} needs a CUDA device, found run.device=cpu; set model.attention=auto")
    _require(not (model.attention == "varlen" and train.precision == "fp32"),
             "model.attention=varlen computes in 16 bit; give train.precision=bf16 or model.attention=auto")
    if model.compile:
        _require(train.zero_stage != 3, "model.compile=true cannot see weights that are gathered layer by layer, found "
                 "train.zero_stage=3; set model.compile=false or a stage below")
        _require(not (model.attention == "sdpa" and run.device == "cuda"), "model.compile=true with model.attention=sdpa needs "
                 "run.device=cpu, found cuda; set model.attention=auto, xformers or varlen")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _read_yaml(path: Path) -> dict[str, typing.Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such config file; configs/ holds demo.yaml, base.yaml and others") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a config: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected sections such as 'data:' and 'train:', found {type(values).__name__}")
    return values


def _lay_over(values: dict[str, typing.Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = SHORT.get(key, key)
    if not equals:
        raise ValueError(f"'{override}': expected key=value, such as train.learning_rate=1e-4")
    try:
        value = text if _field_type(key) is str else yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{key}: '{text}' is not a valid value") from None
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"{key}: '{section}' is a value, not a section")
    values[last] = value


def _field_type(key: str) -> typing.Any:
    """The declared type behind a dotted key, None where the key is not one of ours."""
    kind: typing.Any = Config
    for part in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return None
        kind = typing.get_type_hints(kind).get(part)
    return kind


def _refuse_unknown(values: typing.Any, kind: type, prefix: str) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.')}: expected a section, found {values!r}")
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"{prefix}{key}: unknown key{_nearest_key(prefix, str(key))}")
        if dataclasses.is_dataclass(hints[key]):
            _refuse_unknown({} if value is None else value, hints[key], f"{prefix}{key}.")


def _nearest_key(prefix: str, name: str) -> str:
    """What may have been meant: a section, or a setting of this section or, by the same name, of another."""
    keys = [setting.key for setting in settings_of(Config)]
    elsewhere = [key for key in keys if key.rpartition(".")[2] == name]
    if not (prefix or elsewhere):
        return _nearest(name, list(typing.get_type_hints(Config)))
    beside = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    near = elsewhere or [f"{prefix}{match}" for match in difflib.get_close_matches(name, beside, n=2)]
    return _did_you_mean(near) or f"; `kaleido-fast settings {prefix.rstrip('.')}` lists them"


def _nearest(name: str, known: typing.Sequence[str]) -> str:
    return _did_you_mean(difflib.get_close_matches(name, known, n=2, cutoff=0.5)) or f"; known are {', '.join(known)}"


def _did_you_mean(names: typing.Sequence[str]) -> str:
    return f"; did you mean {' or '.join(repr(name) for name in names)}?" if names else ""


def _explain(problem: typing.Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    message = {"tuple": "a list such as [1, 2]", "dictionary": "a section such as {name: 1}"}.get(message, message)
    return f"{key}: expected {message}, found {problem['input']!r}"
