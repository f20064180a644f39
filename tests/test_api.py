"""KaleidoBert as users see it: README's example, evaluation's own numbers, export and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast import KaleidoBert
from kaleido_fast.cli import main
from kaleido_fast.config import load_config
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import FineTuned
from kaleido_fast.model.weights import load_weights, save_weights
from kaleido_fast.tasks.encoding import PatchRows, PooledEncoder
from kaleido_fast.tasks.products import read_products
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.pretrain import pretrain
from tests.places import REPO
from tests.small import small_config

POOLED = 1e-4  # bound on pooled outputs: other batches are other sums in fp32
FILES = ["model.json", "model.safetensors", "preprocessing.json", "vocab.txt"]


@pytest.fixture(scope="module")
def run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with two checkpoints, fast enough in its learning that inputs matter."""
    out = tmp_path_factory.mktemp("api") / "run"
    assert pretrain(small_config(tiny_shards, out, "train.steps=4", "train.checkpoint_every=2", "model.initializer_range=0.2",
                                 "data.max_tokens=24", "model.itc_dim=8", "train.task_weights.itc=2", "train.itc_block=16"
                                 )) == 0
    return out


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "exported"
    assert main(["export", str(run), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def model(exported: Path) -> KaleidoBert:
    return KaleidoBert.from_pretrained(exported, batch_size=7)


@pytest.fixture(scope="module")
def evaluation(run: Path, tiny_shards: Path) -> tuple[Split, PooledEncoder]:
    """The test split and its encoder, as `evaluate` builds them."""
    config, split = load_config(run / "config.yaml"), Split.open(tiny_shards, "test")
    weights = load_weights(latest_checkpoint(run / "checkpoints") / "weights")
    samples = np.arange(split.num_samples)
    batches = evaluation_batches(FromPhotographs(split), samples, config.data, seed=0, micro_batch=16,
                                 device=torch.device("cpu"), draw_text=False)
    vocabulary = split.manifest.vocabulary
    return split, PooledEncoder(weights, PatchRows(weights, samples, batches), read_products(split, config.data.max_tokens),
                                empty_text=(vocabulary.cls_id, vocabulary.sep_id), precision="fp32")


def _catalogue(split: Split) -> tuple[list[Path], list[str], np.ndarray]:
    """Each sample's photograph as it lay in the catalogue, its text, its product."""
    images = split.folder.parent / "catalogue" / "images"
    records = [split.record(sample) for sample in range(split.num_samples)]
    files = [images / (f"{r['id']}_{r['photo']}.jpg" if r["photo"] else f"{r['id']}.jpg") for r in records]
    return files, [r["text"] for r in records], split.rows(np.arange(split.num_samples))["product"].astype(np.int64)


def test_the_catalogue_gives_what_evaluation_computes(model: KaleidoBert, evaluation) -> None:
    split, encoder = evaluation
    files, texts, products = _catalogue(split)
    samples = np.arange(split.num_samples)
    assert max(len(model.tokenizer.encode(text)) for text in texts) > 22  # some are cut
    images, words = model.pooled_image(files), model.pooled_text(texts)
    torch.testing.assert_close(images, encoder.pooled(samples, None), rtol=0, atol=POOLED)
    torch.testing.assert_close(words, encoder.pooled(None, products), rtol=0, atol=POOLED)
    apart = float((images - images.mean(0)).abs().max())
    assert apart > 100 * POOLED, "the bound says nothing where all pictures give the same"
    expected = torch.from_numpy(encoder.score(samples, products))
    torch.testing.assert_close(model.score(files, texts), expected, rtol=0, atol=10 * POOLED)


def test_all_pairs_are_every_image_with_every_text(model: KaleidoBert, evaluation) -> None:
    files, texts, _ = _catalogue(evaluation[0])
    files, texts = files[:9], list(dict.fromkeys(texts))[:5]
    scores = model.score(files, texts, all_pairs=True)
    assert scores.shape == (9, 5) and scores.dtype == torch.float32
    for image in (0, 8):
        for text in (0, 4):
            torch.testing.assert_close(model.score(files[image], texts[text])[0], scores[image, text], rtol=1e-4, atol=1e-5)
    assert scores.unique().numel() == 45


def test_batches_arrays_and_pil_images_change_nothing(model: KaleidoBert, exported: Path, evaluation) -> None:
    files, texts, _ = _catalogue(evaluation[0])
    whole = KaleidoBert.from_pretrained(exported)
    for given in (files, [Image.open(file) for file in files], np.stack([np.asarray(Image.open(file)) for file in files])):
        torch.testing.assert_close(whole.pooled_image(given), model.pooled_image(files), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.score(files, texts), model.score(files, texts), rtol=1e-4, atol=1e-5)
    one = np.asarray(Image.open(files[0]))
    assert model.pooled_image(one).shape == model.pooled_image(files[0]).shape == (1, 32)
    half = KaleidoBert.from_pretrained(exported, precision="bf16").pooled_text(texts)
    assert half.dtype == torch.float32 and 0 < (half - model.pooled_text(texts)).abs().max() < 0.2


def test_outputs_can_be_learned_from(model: KaleidoBert, evaluation) -> None:
    files, texts, _ = _catalogue(evaluation[0])
    probe = torch.nn.Linear(32, 2)
    for pooled in (model.pooled_image(files[:3]), model.pooled_text(texts[:3])):
        assert not pooled.requires_grad
        probe(pooled).sum().backward()
    assert probe.weight.grad.any() and not model.score(files[:2], texts[:2], all_pairs=True).is_inference()


def test_nothing_in_is_nothing_out(model: KaleidoBert) -> None:
    assert model.pooled_image([]).shape == model.pooled_text([]).shape == (0, 32)
    assert model.score([], []).shape == (0,) and model.score([], ["a"], all_pairs=True).shape == (0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, file: m.score([file, file], ["a"]), "score: 2 images and 1 texts are not pairs; .*all_pairs=True"),
        (lambda m, file: m.pooled_image([file, "none.jpg"]), "image 1: none.jpg: no such photograph"),
        (lambda m, file: m.pooled_image([file] * 8 + [3]), "image 8: a picture is a path"),
        (lambda m, file: m.pooled_text(["a", 5]), "text 1: expected a str, found int"),
        (lambda model, _: model.pooled_image(None), "images: expected a path, a PIL image, .*, found NoneType"),
        (lambda model, _: model.pooled_image(b"jpeg"), "images: expected a path, a PIL image, .*, found bytes"),
        (lambda model, _: model.pooled_text(7), "texts: expected a str or a list of them, found int"),
        (lambda model, _: model.pooled_text(["a", "b\ud800"]), "text 1: holds half of a surrogate pair"),
    ],
)
def test_unusable_inputs_are_named(model: KaleidoBert, evaluation, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model, _catalogue(evaluation[0])[0][0])


def _write_classifier(exported: Path, folder: Path) -> None:
    """The exported model with a classifier of random weights."""
    shutil.copytree(exported, folder)
    plain = load_weights(exported)
    model = KaleidoBertModel(plain.settings, plain.kaleido, plain.vocabulary, plain.image_size,
                             FineTuned("category", ("shirts", "shoes", "bags")))
    model.load_state_dict(plain.state_dict(), strict=False)
    save_weights(folder, model, dict(model.state_dict()))


def test_readme_example_runs(exported: Path, evaluation, tmp_path: Path) -> None:
    """README's Python block, word for word, in a process of its own: no DALI, no DeepSpeed comes along."""
    example = re.search(r"```python\n(from kaleido_fast import KaleidoBert.*?)```", (REPO / "README.md").read_text(), re.S)[1]
    shutil.copytree(exported, tmp_path / "exported")
    _write_classifier(exported, tmp_path / "classifier")
    files = _catalogue(evaluation[0])[0]
    for name, file in zip(("shirt.jpg", "shoes.jpg"), files, strict=False):
        shutil.copy(file, tmp_path / name)
    check = "import sys\nassert not {'nvidia.dali', 'deepspeed'} & set(sys.modules)\n" \
        "assert scores.shape == (2,) and table.shape == ranked.shape == (2, 3)\n" \
        "assert (pictures @ words.T).abs().max() <= 1.0001 and features.shape == (2, 32)\n" \
        "assert len(labels) == 2 and set(labels) <= {'shirts', 'shoes', 'bags'}\n"
    done = subprocess.run([sys.executable, "-c", example + check], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_an_export_is_whole_and_of_the_step_asked_for(run: Path, exported: Path, evaluation, tmp_path: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == FILES
    assert json.loads((exported / "preprocessing.json").read_text()) == {
        "max_tokens": 24, "max_side": 1024, "foreground": "plain-background"}
    assert main(["export", str(run), "--step", "2", "--out", str(tmp_path / "two")]) == 0
    texts = _catalogue(evaluation[0])[1]
    newest, two = KaleidoBert.from_pretrained(run), KaleidoBert.from_pretrained(run, step=2)
    assert torch.equal(KaleidoBert.from_pretrained(exported).pooled_text(texts), newest.pooled_text(texts))
    assert torch.equal(KaleidoBert.from_pretrained(tmp_path / "two").pooled_text(texts), two.pooled_text(texts))
    assert not torch.allclose(newest.pooled_text(texts), two.pooled_text(texts))


def test_a_run_of_before_bounds_were_checked_loads(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    config = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(re.sub(r"(?m)^  queries: .*", "  queries: 0", config))
    assert KaleidoBert.from_pretrained(old).tokenizer
    assert "config.yaml: eval.queries=0 must be at least 1; its default, 300, is taken instead" in capsys.readouterr().err


def test_what_cannot_be_exported_is_one_line(run: Path, exported: Path, tmp_path: Path, capsys) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(re.sub(r"shards: .*", f"shards: {tmp_path}/gone", config))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text(config)
    for arguments, message in [
        ([exported, "--out", tmp_path / "x"], "no config.yaml, so not a run"),
        ([run, "--out", exported], "exported: not empty; give another --out"),
        ([run, "--step", "3", "--out", tmp_path / "x"], "no checkpoint of step 3, it has 2, 4"),
        ([empty, "--out", tmp_path / "x"], "no checkpoint yet; go on with"),
        ([run, "--out", run / "config.yaml" / "x"],
         "config.yaml/x: cannot be written: Not a directory; nothing was left there"),
        ([moved, "--out", tmp_path / "x"],
         "its shards are not there any more: data.shards=.*gone; give data.shards=DIR, the folder where they lie now"),
    ]:
        assert main(["export", *map(str, arguments)]) == 2
        assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "x").exists() and not (tmp_path / ".x.writing").exists()
    shards = load_config(run / "config.yaml").data.shards
    assert main(["export", str(moved), f"data.shards={shards}", "--out", str(tmp_path / "x")]) == 0
    with pytest.raises(ValueError, match="data.shards=.*gone; give shards=DIR, the folder where they lie now"):
        KaleidoBert.from_pretrained(moved)
    assert KaleidoBert.from_pretrained(moved, shards=shards).tokenizer
    weights = next((moved / "checkpoints" / "step-00000004" / "weights").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["export", str(moved), f"data.shards={shards}", "--out", str(tmp_path / "y")]) == 2
    assert "model.safetensors: changed since it was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("preprocessing.json", "{", "preprocessing.json: not JSON: .*; export the model again"),
        ("preprocessing.json", '{"max_tokens": 24}',
         "preprocessing.json: other keys than expected: .*max_side.*; export the model"),
        ("preprocessing.json", '{"max_tokens": 24, "max_side": 9, "foreground": "u2net"}', "foreground 'u2net', this version"),
        ("preprocessing.json", None, "no preprocessing.json and no config.yaml there; give a folder that `kaleido-fast export"),
        ("vocab.txt", None, "vocab.txt: cannot be read as a vocabulary"),
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n", "vocab.txt: not the vocabulary that .* was trained with"),
        ("model.json", None, "no model.json there"),
        ("model.safetensors", "", "damaged weights or settings"),
    ],
)
def test_a_folder_that_is_not_whole_is_named(
    exported: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        KaleidoBert.from_pretrained(folder)


def test_wrong_arguments_are_named(exported: Path, tmp_path: Path) -> None:
    for arguments, message in [
        ({"folder": tmp_path / "none"}, "none: no such folder; give a folder that `kaleido-fast export` wrote"),
        ({"folder": exported, "step": 2}, "an exported model has one step alone"),
        ({"folder": exported, "shards": "/s"}, "an exported model has its vocabulary; give shards=/s with a run's folder"),
        ({"folder": exported, "precision": "fp8"}, "precision=fp8: unknown; use fp32 or bf16"),
        ({"folder": exported, "batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"folder": exported, "device": "gpu"}, "device=gpu: unknown; use cpu, or cuda for a GPU"),
        ({"folder": exported, "device": "cuda:77"}, "device=cuda:77: not there, .* CUDA devices were found; use cpu"),
    ]:
        with pytest.raises(ValueError, match=message):
            KaleidoBert.from_pretrained(**arguments)


def test_a_model_of_a_gpu_scores_on_a_cpu(exported: Path, evaluation, tmp_path: Path) -> None:
    """What was trained with CUDA's attention is computed with another here: the same function."""
    folder = shutil.copytree(exported, tmp_path / "copy")
    settings = json.loads((folder / "model.json").read_text())
    settings["model"]["attention"] = "varlen"
    (folder / "model.json").write_text(json.dumps(settings))
    texts = _catalogue(evaluation[0])[1]
    ours, theirs = (KaleidoBert.from_pretrained(one).pooled_text(texts) for one in (folder, exported))
    assert torch.equal(ours, theirs)


def test_the_front_door_opens_late() -> None:
    code = "import sys, kaleido_fast\nassert 'torch' not in sys.modules\n" \
        "try:\n    kaleido_fast.Nothing\nexcept AttributeError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "has no attribute 'Nothing'" in done.stdout
