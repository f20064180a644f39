"""The authors' feature files through prepare, loader and PretrainStep: their arrays, their losses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.authors.feature_batches import FromFeatureFiles
from kaleido_fast.authors.feature_samples import FeatureSamples
from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.authors.tsv_columns import CATEGORY, LAYOUTS, PRETRAINING, RETRIEVAL, TsvLayout
from kaleido_fast.authors.tsv_rows import parse_row
from kaleido_fast.authors.weights import from_authors
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.kernels.source import clean_source
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import ReferenceSettings
from kaleido_fast.model.task_table import TASKS
from kaleido_fast.training.step import PretrainStep
from tests.authors.variables import settings_from_authors
from tests.parity.golden_cases import ACTIVATION, GOLDEN, Wanted, check, group, read

FILES = {PRETRAINING: "kaleido_bert_small.tsv", RETRIEVAL: "kaleido_bert_small_retrieval.tsv",
         CATEGORY: "kaleido_bert_small_category.tsv"}
THEIR_NAMES = {"amlm": "mlm", "itm": "itm", "rotation": "rotation", "jigsaw": "jigsaw", "camouflage": "camouflage",
               "grey_to_color": "greymask", "blank_to_color": "blankmask"}
EVERY_LOSS = ("amlm", *TASKS)
UNREAD = ("image_mask", "img_subtasks_flag")  # by them and by us


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return read("small")


@pytest.fixture(scope="module")
def model(golden: dict[str, np.ndarray]) -> KaleidoBertModel:
    theirs = group(golden, "weights/")
    model = KaleidoBertModel(*settings_from_authors(json.loads((GOLDEN / "tf_checkpoint/config.json").read_text()), theirs))
    model.load_state_dict(from_authors(theirs, model))
    return model.eval()


@pytest.fixture(scope="module")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 words with the special ones where BERT has them."""
    words = ["[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]",
             *(f"word{number}" for number in range(104, 1000))]
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("".join(f"{word}\n" for word in words))
    return file


@pytest.fixture(scope="module")
def shards(vocabulary_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards of each layout."""
    folder = tmp_path_factory.mktemp("tsv")
    for layout, file in FILES.items():
        prepare_kaleido_tsv(KaleidoTsvOptions((GOLDEN / file,), folder / layout.name, vocabulary_file, processes=1))
    return {layout.name: folder / layout.name for layout in FILES}


@pytest.mark.parametrize("layout", FILES, ids=lambda layout: layout.name)
def test_every_column_is_the_authors(layout: TsvLayout, golden: dict[str, np.ndarray], vocabulary_file: Path) -> None:
    vocabulary = Tokenizer.from_vocab(vocabulary_file).vocabulary()
    lines = (GOLDEN / FILES[layout]).read_bytes().splitlines()
    assert LAYOUTS[lines[0].count(b"\t") + 1] is layout
    rows = [parse_row(line, layout, vocabulary) for line in lines]
    shared = [column.name for column in layout.columns
              if f"inputs/{column.name}" in golden and column.name not in UNREAD]
    assert len(shared) == {"pretraining": 23, "retrieval": 14, "category": 13}[layout.name]
    if layout is PRETRAINING:
        assert [f"inputs/{column.name}" for column in layout.columns] == [n for n in golden if n.startswith("inputs/")]
    for name in shared:
        found, expected = np.stack([row.values[name] for row in rows]), golden[f"inputs/{name}"]
        assert np.array_equal(found, expected), name
        assert (found.dtype == np.float32) == (expected.dtype == np.float32)


def _losses(shards: Path, model: KaleidoBertModel, golden: dict[str, np.ndarray]) -> dict[str, float]:
    """The losses of all six rows, those of train and of validation as two micro-batches of one step."""
    reference = ReferenceSettings(kl_clip=True, joint_grey_softmax=True, amlm_epsilon=1e-5)
    rules = plan_rules(model.kaleido, mask_id=103, ordinary_first=104, ordinary_last=999)
    step = PretrainStep(model, rules, 0, {}, EVERY_LOSS, reference).eval()
    splits = [Split.open(shards, name) for name in ("train", "validation")]
    batches = [next(evaluation_batches(FromFeatureFiles(split), np.arange(split.num_samples), DataSettings(), seed=0,
                                       micro_batch=16, device=torch.device("cpu"), draw_text=True)) for split in splits]
    rows = [step.count(batch) for batch in batches]
    num_step_rows = {name: float(sum(own[name] for own in rows)) for name in rows[0]}
    with torch.no_grad():
        results = [step(batch, own, num_step_rows, None) for batch, own in zip(batches, rows, strict=True)]
    assert {name: int(count) for name, count in num_step_rows.items()} == {
        "amlm": int(golden["inputs/masked_lm_weights"].sum()), "itm": 6, "rotation": 6, "jigsaw": 6, "camouflage": 6,
        "grey_to_color": 12, "blank_to_color": 18}
    sums = {name: sum(float(result.loss_sums[name]) for result in results) for name in num_step_rows}
    losses = {THEIR_NAMES[name]: sums[name] / (count + 1e-5 * (name == "amlm")) for name, count in num_step_rows.items()}
    return losses | {"total": sum(float(result.loss) for result in results)}


def test_the_losses_are_the_authors(shards: dict[str, Path], model: KaleidoBertModel, golden: dict[str, np.ndarray]) -> None:
    found = _losses(shards["pretraining"], model, golden)
    for name, value in found.items():
        assert value == pytest.approx(float(golden[f"losses/{name}"]), rel=ACTIVATION), name
    assert set(found) == set(group(golden, "losses/"))


@pytest.mark.parametrize("layout", ["retrieval", "category"])
@torch.no_grad()
def test_rows_without_a_plan_score_as_the_authors(
    layout: str, shards: dict[str, Path], model: KaleidoBertModel, golden: dict[str, np.ndarray]
) -> None:
    """What can be done with such shards: read them and ask the model."""
    split = Split.open(shards[layout], "test")
    stored, samples = FeatureSamples(split), np.arange(split.num_samples)
    rows = split.rows(samples)
    tokens, lengths = token_rows(rows["tokens"], rows["num_tokens"], split.manifest.vocabulary, 64)
    encoded = model.encode(
        torch.from_numpy(tokens), torch.from_numpy(lengths), lengths, torch.from_numpy(stored.features(samples)),
        clean_source(len(samples), GRIDS, 0, torch.device("cpu")).int(), locations=torch.from_numpy(stored.locations(samples)))
    check({"predict/itm": model.itm_logits(encoded.pooled).numpy(), "predict/pooled_output": encoded.pooled.numpy()},
          {name: Wanted(golden[name], relative=ACTIVATION) for name in ("predict/itm", "predict/pooled_output")})
    if layout == "category":
        heads = read("small_category")
        for column, head in (("category", "catepred"), ("subcategory", "subcatepred")):
            assert np.array_equal(rows[column], heads[f"{head}/labels"].ravel())
