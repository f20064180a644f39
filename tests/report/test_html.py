"""The report: offline, complete, safe with any text, and honest about what is not there."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from kaleido_fast.report.html import write_report

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Collects every outside reference and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.images: list[bytes] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action"):
                self._refer(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def _refer(self, value: str) -> None:
        if value.startswith("data:image/"):
            self.images.append(base64.b64decode(value.partition("base64,")[2], validate=True))
        else:
            self.outside.append(value)


def _check(folder: Path) -> Checker:
    write_report(folder)
    checker = Checker()
    checker.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


@pytest.mark.parametrize(("ended", "shown"), [
    ({"how": "done"}, "done"), ({"how": "stopped"}, "stopped by a signal"),
    ({"how": "running"}, "killed, or its machine failed"),
    ({"how": "failed", "why": "x.tar: <b> is bad"}, "failed: x.tar: <b> is bad"),
])
def test_it_says_how_the_run_ended(ended: dict, shown: str, made_run: Path) -> None:
    file = made_run / "summary.json"
    summary = json.loads(file.read_text()) | {"ended": ended, "earlier": [{"how": "killed", "step": 7}]}
    file.write_text(json.dumps(summary))
    words = _check(made_run).words
    assert words[words.index("ended") + 1] == shown
    assert words[words.index("ended before, at step 7") + 1] == "killed, or its machine failed"
    del summary["ended"], summary["earlier"]  # of an older version
    file.write_text(json.dumps(summary))
    assert "ended" not in _check(made_run).words


def test_nothing_is_fetched_from_anywhere(made_run: Path) -> None:
    checker = _check(made_run)
    page = (made_run / "report.html").read_text(encoding="utf-8")
    assert checker.outside == []
    without_pictures = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<iframe", without_pictures)


def test_every_picture_can_be_shown(made_run: Path) -> None:
    checker = _check(made_run)
    for data in checker.images:
        Image.open(io.BytesIO(data)).verify()
    curves, pictures = (
        8 + 5,
        1 + 2 * 5,
    )  # eight losses with the total, five accuracies; one ITR query, two TIR answers
    assert len(checker.images) == curves + pictures


def test_every_number_is_there(made_run: Path) -> None:
    words = " ".join(_check(made_run).words)
    recalls = ["23.4 %", "34.6 %", "54.3 %", "67.9 %", "100.0 %", "345.6 of 600"]
    probes = ["91.2 %", "61.2 %", "93.2 %", "0.812", "0.512", "0.712", "43.2 %"]
    tasks = ["87.6 %", "45.7 %", "76.5 %", "0.346", "0.568", "43.8 %", "0.173"]
    chances = ["25.0 %", "4.2 %", "11.1 %", "1.0 %", "9.9 %"]
    protocol = ["123 queries", "among 101 candidates", "1 draw", "2001 train", "202 validation", "803 others"]
    run = ["118.5 samples/s", "3.4 %", "4,321, 1,234", "broken photograph: 7", "train-000000.tar, sample 12"]
    rest = ["777 samples", "photograph 17-0", "2.13.0", "rank 3 of 101", "5.50", "hidden: 128"]
    for figure in recalls + probes + tasks + chances + protocol + run + rest:
        assert figure in words, figure


def test_a_text_cannot_become_markup(made_run: Path) -> None:
    checker = _check(made_run)
    assert "<b>blue</b>" not in (made_run / "report.html").read_text(encoding="utf-8")
    assert "A <b>blue</b> shirt no. 0 & more" in "".join(checker.words)


def test_a_long_text_without_spaces_is_cut_not_dropped(made_run: Path) -> None:
    file = made_run / "examples.json"
    examples = json.loads(file.read_text())
    examples["tir"][0]["query"]["text"] = "深红色台灯" * 60
    file.write_text(json.dumps(examples))
    assert "深红色台灯" * 35 + "深红色 …" in _check(made_run).words


def test_missing_shards_are_said(made_run: Path) -> None:
    assert "data.shards=/nowhere/shards has no manifest.json" in " ".join(_check(made_run).words)


def test_returns_path_and_headline(made_run: Path) -> None:
    line = write_report(made_run)
    assert line.startswith(f"{made_run / 'report.html'}: ITR R@1 23.4 % R@10 67.9 %, TIR R@1 34.6 %")
    assert "1 in 101, 123 queries x 1; chance R@1 1.0 % R@10 9.9 %" in line
    assert "rotation 87.6 %" in line
    evaluation = json.loads((made_run / "eval.json").read_text())["category"]["image"]
    assert f"(most frequent {100 * evaluation['most_frequent']:.1f} %)" in line  # of one class 100 % says nothing


def test_before_evaluation_it_says_so(made_run: Path) -> None:
    (made_run / "eval.json").unlink()
    (made_run / "examples.json").unlink()
    checker = _check(made_run)
    assert "Not evaluated yet" in checker.words
    assert len(checker.images) == 13


def test_spread_over_draws_is_shown(made_run: Path) -> None:
    file = made_run / "eval.json"
    evaluation = json.loads(file.read_text())
    evaluation["itr"] |= {"draws": 5, "spread": {"R@1": 0.0123, "R@5": 0.02, "R@10": 0.03, "R@100": 0.0}}
    file.write_text(json.dumps(evaluation))
    assert "23.4 % ± 1.2" in _check(made_run).words


def test_a_torn_last_line_is_left_out_and_any_other_is_named(made_run: Path) -> None:
    file = made_run / "metrics.jsonl"
    lines = file.read_text()
    file.write_text(lines + '{"step": 61')
    _check(made_run)
    file.write_text("not json\n" + lines)
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: not JSON"):
        write_report(made_run)


def test_what_is_not_a_run_is_named(tmp_path: Path, made_run: Path) -> None:
    with pytest.raises(ValueError, match="no config.yaml, so not a run"):
        write_report(tmp_path)
    (made_run / "eval.json").write_text("{")
    with pytest.raises(ValueError, match="eval.json: not JSON"):
        write_report(made_run)
