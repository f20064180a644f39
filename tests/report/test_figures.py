"""Figures of products from shards: `kaleido-fast explain`, and a report's."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.config import load_config
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.kernels.plan_rules import NONE
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import TASKS, KaleidoTask
from kaleido_fast.report import figures
from kaleido_fast.report.figures import explain, run_figures
from kaleido_fast.report.product_figure import ShownProduct, _status, hidden_patches, product_figure
from kaleido_fast.report.word_panels import ShownWord, ShownWords, patches_of
from kaleido_fast.settings import as_yaml
from tests.places import DEMO
from tests.small import PATCHES


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[ShownProduct]:
    """Takes what is drawn, which is then not drawn."""
    taken: list[ShownProduct] = []
    monkeypatch.setattr(figures, "product_figure", lambda product, *_: taken.append(product) or b"png")
    return taken


def test_a_product_is_drawn(tiny_shards: Path, tmp_path: Path) -> None:
    """The same product gives the same picture, another product another."""
    ids = [product.decode() for product in Split.open(tiny_shards, "test").products["id"][:2]]
    pictures = []
    for number, product in enumerate((None, ids[0], ids[1])):
        out = tmp_path / "new" / f"{number}.png"
        explain(tiny_shards, product, out)
        assert Image.open(out).size[0] > 1000
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[1] != pictures[2]


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_product_of_any_split_is_found(tiny_shards: Path, tmp_path: Path, name: str, shown: list[ShownProduct]) -> None:
    product = Split.open(tiny_shards, name).products["id"][-1].decode()
    explain(tiny_shards, product, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == b"png" and shown[0].name == product


def test_an_unknown_product_is_named(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no product 'nobody' there; it has such as '"):
        explain(tiny_shards, "nobody", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_it_shows_the_words_and_patches_of_the_alignment(tiny_shards: Path, tmp_path: Path, shown: list[ShownProduct]) -> None:
    """The masks that are drawn are those of the files, and the plan is the one that they guide."""
    explain(tiny_shards, None, tmp_path / "x.png")
    (product,) = shown
    split = Split.open(tiny_shards, "test")
    masks = split.alignment(split.products["first_sample"][:1], "truth")[0]
    assert product.words.about == "alignment 'truth'" and product.words.words
    assert all(word.mask == masks[word.first] and word.heat is None for word in product.words.words)
    assert len(product.words.words) == sum(bool(masks[word.first]) for word in product.words.words)
    assert product.text.split()[0] == product.words.words[0].text, "a colour comes first in the catalogue's texts"
    masked = product.drawn.masked_positions[0]
    assert (product.masked_text != product.text) and (masked != NONE).any()
    walked = [int(place) for place in masked if place != NONE and masks[int(place) - 1]]
    assert walked, "some of the masked words are aligned"
    lock = product.photograph.square
    assert product.photograph.pixels.ndim == 3 and lock.side == split.rows(np.array([0]))[0]["side"]


def test_words_may_be_chosen(tiny_shards: Path, tmp_path: Path, shown: list[ShownProduct]) -> None:
    explain(tiny_shards, None, tmp_path / "x.png")
    word = shown[0].words.words[-1].text
    explain(tiny_shards, None, tmp_path / "x.png", chosen=[word.upper()])
    assert {entry.text for entry in shown[1].words.words} == {word}
    with pytest.raises(ValueError, match=f"words=saddle: not aligned in product '.*'; aligned are: .*{word}"):
        explain(tiny_shards, None, tmp_path / "x.png", chosen=["saddle"])


def test_without_an_alignment_the_part_says_so(tiny_shards: Path, tmp_path: Path, shown: list[ShownProduct]) -> None:
    explain(tiny_shards, None, tmp_path / "x.png", "none")
    assert shown[0].words == ShownWords("no alignment: masking is random", [])
    with pytest.raises(ValueError, match="has no such alignment, it has: truth"):
        explain(tiny_shards, None, tmp_path / "x.png", "other")


def test_a_broken_photograph_is_said(tiny_shards: Path, tmp_path: Path, shown: list[ShownProduct]) -> None:
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    row = Split.open(shards, "test").rows(np.array([0]))[0]
    with (shards / "test-000000.tar").open("r+b") as stream:
        stream.seek(int(row["offset"]) + 30)
        stream.write(bytes(40))
    explain(shards, None, tmp_path / "x.png")
    assert shown[0].photograph is None
    assert Image.open(io.BytesIO(product_figure(shown[0], KaleidoSettings(patch_size=12), 40))).size[0] > 300


def test_a_report_shows_six_products_under_the_runs_settings(tiny_shards: Path, shown: list[ShownProduct]) -> None:
    config = load_config(DEMO, [*PATCHES, f"data.shards={tiny_shards}", "data.alignment=truth", "train.seed=3"])
    assert run_figures(config) == [b"png"] * 6
    split = Split.open(tiny_shards, "test")
    spread = [split.num_products * place // 6 for place in range(6)]
    assert [product.name for product in shown] == [split.products["id"][place].decode() for place in spread]
    assert [product.row for product in shown] == list(range(6)) and shown[0].images.shape[1] == 60
    for product in shown:
        donor = int(product.drawn.donors[product.row, 0])
        assert donor != product.row and product.words.words


def test_a_runs_tasks_are_drawn(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown) -> None:
    """Also one that is no row of the paper's, on the run's grids, under its seed, of its text's length."""
    monkeypatch.setitem(TASKS, "blank_thirds", KaleidoTask("blank_thirds", 3, "blank", 2))
    settings = ["kaleido.tasks=[rotation, blank_thirds]", "kaleido.grids=[3, 1]", "train.seed=3", "data.max_tokens=12",
                "data.alignment=none", f"data.shards={tiny_shards}"]
    (tmp_path / "config.yaml").write_text(as_yaml(load_config(DEMO, settings)))
    explain(tiny_shards, None, tmp_path / "x.png", run=tmp_path)
    explain(tiny_shards, None, tmp_path / "x.png")
    of_run, of_none = shown
    assert [(task.effect, task.grid) for task in of_run.drawn.tasks] == [("turn", 1), ("blank", 3)]
    assert of_run.words.about == "no alignment: masking is random" and of_run.drawn.masked_tokens.shape[1] == 12
    assert len(of_none.drawn.tasks) == 5 and of_none.words.about == "alignment 'truth'"
    kaleido = KaleidoSettings(grids=(3, 1), tasks=("rotation", "blank_thirds"), patch_size=12)
    assert Image.open(io.BytesIO(product_figure(of_run, kaleido, 40))).size[0] > 300


def test_what_an_epoch_hides(tiny_shards: Path, tmp_path: Path, shown: list[ShownProduct]) -> None:
    """Slots 4 of level 3, 0 and 15 of level 4, 1, 2, 24 of level 5 are bits 5 + 4, 14 + slot, 30 + slot."""
    explain(tiny_shards, None, tmp_path / "x.png")
    (product,) = shown
    drawn = product.drawn
    drawn.slots[0] = torch.tensor([4, 0, 15, 1, 2, 24])
    hidden = hidden_patches(drawn, 0, GRIDS)
    assert hidden == sum(1 << bit for bit in (9, 14, 29, 31, 32, 54))
    assert list(patches_of(hidden, GRIDS)) == [(3, 4), (4, 0), (4, 15), (5, 1), (5, 2), (5, 24)]
    greyed = drawn._replace(labels=drawn.labels[:, 3:4], slots=drawn.slots[:, 1:3], tasks=drawn.tasks[3:4])
    assert hidden_patches(greyed, 0, GRIDS) == 1 << 14 | 1 << 29
    word = ShownWord("navy", 2, 4, 1 << 14, None)
    assert _status(product, word, {3}, hidden).startswith("masked, read as ")
    assert _status(product, word, {4}, hidden) == "to be read, a patch hidden"
    assert _status(product, word._replace(mask=1 << 15), {4}, hidden) == ""
