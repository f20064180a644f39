"""The tables of all settings: the page is what the code says, and a terminal shows the same."""

from pathlib import Path

import pytest

from kaleido_fast.cli import main
from kaleido_fast.config import Config
from kaleido_fast.settings import settings_of
from kaleido_fast.settings_table import COMMAND, as_markdown, as_table, find_settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_page_is_what_the_fields_say() -> None:
    assert PAGE.read_text("utf-8") == as_markdown(), f"run `{COMMAND}`"


def test_the_command_that_makes_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text("utf-8")


def test_every_key_is_on_the_page_and_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    out = capsys.readouterr().out
    for setting in settings_of(Config):
        assert f"| `{setting.key}` |" in as_markdown() and f"\n{setting.key} " in out and setting.sentence in out


def test_a_row_says_all_of_a_setting() -> None:
    assert as_table(find_settings("train.micro_batch")).splitlines()[1].split() == [
        "train.micro_batch", "64", "whole", "number", "samples", "may", "change"]
    assert "samples that a worker holds at once [16..1,048,576; a multiple of 16]" in as_table(find_settings("train.micro"))
    assert "[dct, efficientnet_lite0, linear, none, resnet50]" in as_table(find_settings("model.patch_encoder"))


@pytest.mark.parametrize(("key", "cell"), [
    ("align.hidden", "decides the captioner"), ("align.beam", "decides the alignments"), ("align.replace", ""),
    ("data.max_tokens", ""), ("train.log_every", "may change"),
])
def test_the_last_column_says_what_another_value_does(key: str, cell: str) -> None:
    (line,) = (line for line in as_markdown().splitlines() if line.startswith(f"| `{key}` |"))
    assert line.split("|")[-2].strip() == cell


@pytest.mark.parametrize(("prefix", "keys"), [("data.itm", 3), ("data.itm_hard_from", 1), ("reference", 3)])
def test_a_prefix_chooses(prefix: str, keys: int) -> None:
    assert len(find_settings(prefix)) == keys


@pytest.mark.parametrize(("prefix", "message"), [
    ("trian", "no setting begins with 'trian'; did you mean 'train'?"),
    ("data.zzzzzzzzz", "no setting begins with 'data.zzzzzzzzz'; "), ("0", "the sections are data, kaleido, model,"),
])
def test_an_unknown_prefix_is_named(prefix: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", prefix]) == 2
    assert message in capsys.readouterr().err
