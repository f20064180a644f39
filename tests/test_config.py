"""Settings: strict keys, types, combinations; the shipped configs."""

from dataclasses import replace
from pathlib import Path

import pytest

from kaleido_fast.config import Config, build_config, load_config, load_run_config
from kaleido_fast.settings import as_yaml
from kaleido_fast.training.settings import RunSettings
from tests.places import CONFIGS

SHIPPED = sorted(set(CONFIGS.glob("**/*.yaml")) - set(CONFIGS.glob("ablations/*.yaml")))  # those are laid over a config
LENGTH = {"train": {"steps": 1}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_config_is_valid_and_round_trips(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    saved = tmp_path / "config.yaml"
    saved.write_text(as_yaml(config))
    assert load_config(saved) == config


def test_base_reads_from_a_store_and_base_computed_encodes_small_patches() -> None:
    base, computed = (load_config(CONFIGS / f"{name}.yaml") for name in ("base", "base_computed"))
    assert (base.model.features, base.model.patch_encoder, base.kaleido.patch_size) == ("stored", "resnet50", 224)
    assert (computed.model.features, computed.model.patch_encoder, computed.kaleido.patch_size) == ("computed", "resnet50", 48)


@pytest.mark.parametrize("name", ["base", "base_computed", "large"])
def test_configs_for_a_gpu_keep_it_busy(name: str) -> None:
    """512 samples a step a GPU, packed attention in one call, compiled; the paper's warm-up of 5,000 x 256 samples."""
    config = load_config(CONFIGS / f"{name}.yaml")
    train, model, workers = config.train, config.model, 8 if name == "large" else 1
    assert train.micro_batch * train.accumulation >= 512 and train.precision == "bf16"
    assert (model.attention, model.compile, config.run.device) == ("xformers", True, "cuda")
    samples = train.warmup_steps * train.micro_batch * train.accumulation * workers
    assert samples == pytest.approx(5000 * 256, rel=0.002) and train.learning_rate == 2e-5


def test_override_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {learning_rate: 1.0e-3}\n")
    config = load_config(file, ["train.learning_rate=2e-4", "kaleido.grids=[8]", "kaleido.blank_grid=8",
                                "kaleido.tasks=[blank_to_color]", "run.out=007", "train.task_weights={itm: 2}"])
    assert config.train.learning_rate == 2e-4
    assert config.kaleido.grids == (8,)
    assert config.run.out == str(Path("007").absolute())
    assert config.train.task_weights == {"itm": 2.0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.learning_rat=1"], "train.learning_rat: unknown key; did you mean 'train.learning_rate'"),
        (["trian.steps=1"], "trian: unknown key; did you mean 'train'"),
        (["train.steps=many"], "train.steps: expected .*integer.*, found 'many'"),
        (["train.zero_stage=4"], "train.zero_stage: expected .*, found 4"),
        (["train=3"], "train: expected a section, found 3"),
        (["train.steps"], "expected key=value"),
        (["train.steps.x=1"], "'steps' is a value|unknown key|expected"),
        (["train.steps=5", "train.minutes=1"], "give one of train.steps.*found train.steps=5 and train.minutes=1"),
        (["train.micro_batch=40"], "train.micro_batch=40 must be a positive multiple of 16"),
        (["data.image_size=100"], r"data.image_size=100 must be a multiple of every grid, found grids \[3\]"),
        (["model.layer_norm_eps=1e-5"], "model.layer_norm_eps=1e-05 must be 1e-12, BERT's: the operation embed has no other"),
        (["model.heads=7"], "model.hidden=768 must be a multiple of model.heads=7"),
        (["model.attention=xformers", "run.device=cpu"], "xformers needs a CUDA device, found run.device=cpu; set model"),
        (["model.attention=varlen", "run.device=cuda", "model.attention_dropout=0.1"], "varlen has no dropout, found model.at"),
        (["model.attention=triton", "run.device=cuda", "model.attention_dropout=0.1"], "triton has no dropout, found model.at"),
        (["model.attention=triton", "run.device=cpu"], "triton needs a CUDA device, found run.device=cpu; set model.attention"),
        (["model.attention=varlen", "run.device=cuda"], "varlen computes in 16 bit; give train.precision=bf16 or mod"),
        (["model.compile=true", "train.zero_stage=3"], "found train.zero_stage=3; set model.compile=false or a stage below"),
        (["model.compile=true", "model.attention_dropout=0.1"], "found model.attention_dropout=0.1; set model.attention"),
        (["model.compile=true", "model.attention=sdpa", "run.device=cuda"],
         "needs run.device=cpu, found cuda; set model.attention=auto, xformers or varlen"),
        (["model.attention=varlen", "run.device=cpu"], "varlen needs a CUDA device, found run.device=cpu; set model.attention"),
        (["data.max_tokens=600"], r"data.max_tokens=600 must lie in 3..model.max_positions=512"),
        (["data.max_tokens=600", "model.max_positions=600", "run.device=cuda"],
         "data.max_tokens=600 must be at most 512 with run.device=cuda; set it lower"),
        (["model.hidden=36"], "model.hidden=36 must be a multiple of 8 up to 4,096 with run.device=cuda"),
        (["train.minutes=1", "train.warmup_steps=5"], "train.minutes needs train.warmup_steps >= 20, found 5"),
        (["train.task_weights={jigsav: 1}"], "train.task_weights: unknown task 'jigsav'; did you mean 'jigsaw'"),
        (["kaleido.tasks=[rotatoin]"], "rotatoin"),
        (["model.patch_encoder=resnet"],
         "model.patch_encoder: expected 'dct', 'efficientnet_lite0', 'linear', 'none' or 'resnet50', found 'resnet'"),
        (["model.patch_encoder=resnet50"], "resnet50 needs model.patch_encoder_weights=FILE: torchvision's"),
        (["model.patch_encoder_weights=random"], "the dct encoder reads no weights; take it out"),
        (["model.patch_encoder=efficientnet_lite0", "kaleido.patch_size=16"],
         "kaleido.patch_size=16: the efficientnet_lite0 encoder needs at least 17"),
        (["model.patch_encoder=none"], "model.patch_encoder=none needs model.patch_features=F, the width"),
        (["model.patch_encoder=linear", "model.features=stored"],
         "model.patch_encoder=linear is trained with the model, so its features cannot be stored; set model.features=computed"),
        (["data.store_dtype=int8"], "data.store_dtype: expected 'fp32', 'fp16' or 'uint8', found 'int8'"),
        (["train.log_every=0"], "train.log_every=0 must be at least 1"),
        (["train.optimizer=adam"], "train.optimizer: expected 'adamw' or 'authors', found 'adam'"),
        (["reference.kl_clip=1e-7"], "reference.kl_clip: expected .*bool"),
        (["reference.amlm_epsilon=-1"], "reference.amlm_epsilon=-1.0 must lie in 0..1"),
        (["reference.kl_clib=true"], "reference.kl_clib: unknown key; did you mean 'reference.kl_clip'"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, overrides: list[str], message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {learning_rate: 1.0e-3}\n")
    with pytest.raises(ValueError, match=message):
        load_config(file, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not valid YAML"), ("- 1\n- 2\n", "expected sections"), ("train: {steps: x}\n", "train.steps")],
)
def test_unusable_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such config file"):
        load_config(tmp_path / "none.yaml")


def test_defaults_are_the_base_shape() -> None:
    assert replace(build_config({}), run=RunSettings()) == Config()  # run.out is absolute in a config that was read
    assert (Config().model.hidden, Config().model.layers, Config().data.image_size) == (768, 12, 240)


def test_paths_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    config = build_config({}, ["data.shards=~/shards", "run.out=runs/../x", "data.store=/store", "init.bert=~",
                               "align.captioner=c", "model.patch_encoder=resnet50", "model.patch_encoder_weights=w.pth"])
    assert (config.data.shards, config.run.out) == (str(tmp_path / "home" / "shards"), str(tmp_path / "x"))
    assert (config.data.store, config.init.bert, config.init.weights) == ("/store", str(tmp_path / "home"), "")
    assert (config.align.captioner, config.model.patch_encoder_weights) == (str(tmp_path / "c"), str(tmp_path / "w.pth"))
    drawn = build_config({}, ["model.patch_encoder=resnet50", "model.patch_encoder_weights=random"])
    assert drawn.model.patch_encoder_weights == "random"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "c.yaml").write_text("train: {steps: 7}\n")
    assert load_config("~/c.yaml").train.steps == 7


@pytest.mark.parametrize(("kept", "overrides", "message"), [
    ("/gone/shards", [], "its shards are not there any more: data.shards=/gone/shards; give shards=DIR, the folder where"),
    ("o/base", [],
     "data.shards=.*/o/base, which is 'o/base' of config.yaml seen from the current folder; give shards=DIR"),
    ("o/base", ["data.shards=other"], "data.shards=[^,]*/other; give shards=DIR"),
])
def test_shards_that_are_not_where_they_were(tmp_path: Path, kept: str, overrides: list[str], message: str) -> None:
    """Runs of before paths were made absolute hold them as they were typed."""
    (tmp_path / "config.yaml").write_text(f"data: {{shards: {kept}}}\n")
    with pytest.raises(ValueError, match=message):
        load_run_config(tmp_path, overrides, needs_shards=True)
    assert load_run_config(tmp_path, overrides).data.shards
    assert load_run_config(tmp_path, [f"data.shards={tmp_path}"], needs_shards=True).data.shards == str(tmp_path)


def test_an_old_run_is_used_with_the_default_of_what_is_out_of_bounds_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("eval: {queries: 0, draws: 3, probe_strengths: []}\ntrain: {steps: 5, log_every: 0, seed: 3}\n")
    config = load_run_config(tmp_path)
    assert (config.eval, config.train.seed) == (replace(Config().eval, draws=3), 3) and config.train.log_every == 10
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: train.log_every=0 must be at least 1; its default, 10, is taken instead",
        f"{file}: eval.queries=0 must be at least 1; its default, 300, is taken instead",
        f"{file}: eval.probe_strengths=[] must be one or more numbers of at least 0; its default, (0.1, 0.01, 0.001, 0.0001), "
        "is taken instead"]
    with pytest.raises(ValueError, match="eval.queries=-1 must be at least 1"):
        load_run_config(tmp_path, ["eval.queries=-1"])
    with pytest.raises(ValueError, match="train.log_every=0 must be"):
        load_config(file)  # a new run's
    file.write_text("eval: {queries: 0}\ntrain: {micro_batch: 17}\n")  # decided what was trained
    with pytest.raises(ValueError, match="train.micro_batch=17 must be a positive multiple of 16"):
        load_run_config(tmp_path)
    assert not capsys.readouterr().err
