"""The root of the settings: YAML files and `key=value`, typed and strict.

Each component's own settings stand beside the component; this module joins them, reads them and says what is wrong.
"""

import dataclasses
import difflib
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from kaleido_fast.alignment.settings import AlignSettings
from kaleido_fast.bounds import check_bounds
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.kernels.embed_inputs import MAX_HIDDEN
from kaleido_fast.kernels.plan_rules import GROUP, MAX_TOKENS
from kaleido_fast.model.check import check_model
from kaleido_fast.model.kaleido_tasks import LOSSES
from kaleido_fast.model.settings import InitSettings, KaleidoSettings, ModelSettings, ReferenceSettings
from kaleido_fast.tasks.settings import EvalSettings, check_eval_settings
from kaleido_fast.training.settings import MEASURED_STEPS, RunSettings, TrainSettings


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a run is made of; saved with it as config.yaml."""

    data: DataSettings = field(default_factory=DataSettings)
    kaleido: KaleidoSettings = field(default_factory=KaleidoSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    init: InitSettings = field(default_factory=InitSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    align: AlignSettings = field(default_factory=AlignSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    run: RunSettings = field(default_factory=RunSettings)


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file, lay `key=value` over it and check the whole.

    Raises:
        ValueError: the file cannot be read; a key is unknown; a value has the wrong type; two values do not go together.
    """
    return build_config(_read_yaml(Path(path)), overrides)


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
    return config


def load_run_config(run: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """The settings of the run in a folder, with `key=value` laid over.

    Raises:
        ValueError: the folder is not a run, or as `load_config` does.
    """
    return _load_from(Path(run), "config.yaml", "pretrain", overrides)


def load_align_config(run: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """The same of a folder that `kaleido-fast align` wrote."""
    return _load_from(Path(run), "align.yaml", "align", overrides)


def _load_from(run: Path, name: str, verb: str, overrides: typing.Sequence[str]) -> Config:
    if not (run / name).is_file():
        raise ValueError(f"{run}: no {name}, so not a run of {verb}; give a folder that `kaleido-fast {verb}` wrote")
    return load_config(run / name, overrides)


def check_config(config: Config) -> None:
    """Refuse values that are well typed and still cannot work together (ValueError, naming the keys)."""
    check_bounds({name: getattr(config, name) for name in typing.get_type_hints(Config)})
    train, model, data = config.train, config.model, config.data
    check_model(model, config.kaleido, data)
    _require(bool(config.run.out), "run.out: not given; name the folder to write the run to")
    lengths = {"train.steps": train.steps, "train.epochs": train.epochs, "train.minutes": train.minutes}
    given = [f"{key}={value:g}" for key, value in lengths.items() if value]
    _require(len(given) <= 1, f"give one of {', '.join(lengths)}, found {' and '.join(given)}; set the others to 0")
    _require(train.micro_batch > 0 and train.micro_batch % GROUP == 0,
             f"train.micro_batch={train.micro_batch} must be a positive multiple of {GROUP} (whole groups)")
    _require(train.accumulation > 0, f"train.accumulation={train.accumulation} must be at least 1")
    for key in ("log_every", "validate_every", "checkpoint_every", "keep_checkpoints"):
        _require(getattr(train, key) > 0, f"train.{key}={getattr(train, key)} must be at least 1")
    _require(train.warmup_steps >= 0, f"train.warmup_steps={train.warmup_steps} must not be negative")
    _require(not (train.minutes and train.schedule == "authors"),
             "train.schedule=authors needs the number of steps from the start; give train.steps or train.epochs")
    _require(not (train.minutes and train.warmup_steps < MEASURED_STEPS),
             f"train.minutes needs train.warmup_steps >= {MEASURED_STEPS}, found {train.warmup_steps}: the schedule "
             f"is known only after {MEASURED_STEPS} steps")
    _require(not (config.init.bert and config.init.weights),
             f"init.bert={config.init.bert} and init.weights={config.init.weights}: give one of the two")
    _require(config.run.device == "cpu" or data.max_tokens <= MAX_TOKENS,
             f"data.max_tokens={data.max_tokens} must be at most {MAX_TOKENS} with run.device=cuda; set it lower")
    _require(config.run.device == "cpu" or (model.hidden % 8 == 0 and model.hidden <= MAX_HIDDEN),
             f"model.hidden={model.hidden} must be a multiple of 8 up to {MAX_HIDDEN:,} with run.device=cuda")
    _check_attention(model, train, config.run)
    _check_align(config.align)
    check_eval_settings(config.eval)
    for key, names in (("task_weights", train.task_weights), ("losses_on_mismatched", train.losses_on_mismatched)):
        for name in names:
            _require(name in LOSSES, f"train.{key}: unknown task '{name}'{_nearest(name, LOSSES)}")


def _check_attention(model: ModelSettings, train: TrainSettings, run: RunSettings) -> None:
    _require(model.attention == "sdpa" or run.device != "cpu",
             f"model.attention={model.attention} needs a CUDA device, found run.device=cpu; set model.attention=sdpa")
    _require(not (model.attention == "varlen" and model.attention_dropout),
             f"model.attention=varlen has no dropout, found model.attention_dropout={model.attention_dropout:g}; set it to 0, "
             "or model.attention=xformers")
    _require(not (model.attention == "varlen" and train.precision == "fp32"),
             "model.attention=varlen computes in 16 bit; give train.precision=bf16 or model.attention=sdpa")
    if not model.compile:
        return
    _require(train.zero_stage != 3, "model.compile=true cannot see weights that are gathered layer by layer, found "
             "train.zero_stage=3; set model.compile=false or a stage below")
    _require(not model.attention_dropout, f"model.compile=true has attention without dropout alone, found "
             f"model.attention_dropout={model.attention_dropout:g}; set model.attention_dropout=0 or model.compile=false")
    _require(not (model.attention == "sdpa" and run.device == "cuda"), "model.compile=true with model.attention=sdpa needs "
             "run.device=cpu, found cuda; set model.attention=xformers or varlen")


def _check_align(align: AlignSettings) -> None:
    _require(not (align.steps and align.minutes),
             f"give one of align.steps, align.minutes, found align.steps={align.steps} and align.minutes={align.minutes:g}; "
             "set the other to 0")
    _require(not (align.minutes and align.warmup_steps < MEASURED_STEPS),
             f"align.minutes needs align.warmup_steps >= {MEASURED_STEPS}, found {align.warmup_steps}: the schedule is known "
             f"only after {MEASURED_STEPS} steps")
    _require(align.micro_batch % GROUP == 0,
             f"align.micro_batch={align.micro_batch} must be a positive multiple of {GROUP} (whole groups)")


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
            raise ValueError(f"{prefix}{key}: unknown key{_nearest(f'{prefix}{key}', _all_keys())}")
        if dataclasses.is_dataclass(hints[key]):
            _refuse_unknown({} if value is None else value, hints[key], f"{prefix}{key}.")


def _all_keys() -> list[str]:
    sections = typing.get_type_hints(Config)
    keys = [f"{name}.{key}" for name, kind in sections.items() for key in typing.get_type_hints(kind)]
    return keys + list(sections)


def _nearest(name: str, known: typing.Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if not close:
        return f"; known are {', '.join(known)}" if len(known) < 12 else "; see configs/base.yaml for the known keys"
    return f"; did you mean {' or '.join(repr(match) for match in close[:2])}?"


def _explain(problem: typing.Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    message = {"tuple": "a list such as [1, 2]", "dictionary": "a section such as {name: 1}"}.get(message, message)
    return f"{key}: expected {message}, found {problem['input']!r}"

