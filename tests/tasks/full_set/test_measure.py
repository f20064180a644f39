"""Full-set retrieval from a setting to eval.json, the headline and the report."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from kaleido_fast.config import Config
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.report.html import write_report
from kaleido_fast.settings import as_yaml
from kaleido_fast.tasks.evaluate import evaluate
from kaleido_fast.tasks.full_set.measure import FULL_SET
from kaleido_fast.tasks.measures import headline


def test_it_is_measured_where_it_is_asked_for(
    small_model: KaleidoBertModel, small_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "full_set" not in evaluate(small_model, small_config, {"full_set": FULL_SET})[0]
    config = dataclasses.replace(
        small_config, eval=dataclasses.replace(small_config.eval, full_set=True, full_set_queries=5, batch_pairs=128))
    lines: list[dict] = []
    numbers, examples = evaluate(small_model, config, {"full_set": FULL_SET}, lines)
    full = numbers["full_set"]
    assert list(full["rankings"]) == ["itm"] and full["queries"] == 5 and full["products"] == full["candidates"] > 20
    assert full["pairs"] == 5 * 2 * full["products"] - 25 and full["left_out"] == 0
    assert len(lines) == 10 and all(1 <= line["ranks"]["itm"] <= line["candidates"] for line in lines)
    assert f"pairs of {full['products']} products by matching" in capsys.readouterr().out
    recall = f"mean of six recalls {100 * full['rankings']['itm']['mean_recall']:.1f} % by matching (ITM)"
    assert recall in headline(numbers)
    for name, content in (("eval.json", numbers), ("examples.json", examples)):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    write_report(tmp_path)
    page = re.sub(r"<[^>]*>", " ", (tmp_path / "report.html").read_text())
    for part in ("Full-set retrieval", "text to image, by matching (ITM)", f"among all {full['products']} products", "MRR"):
        assert part in page, part
