"""Rows of an ablation: the shipped ones are settings that work together; others are refused by name."""

from pathlib import Path

import pytest

from kaleido_fast.bench.ablation.rows import read_rows
from kaleido_fast.config import load_config
from tests.places import DEMO, REPO

SHIPPED = REPO / "configs" / "ablations"


def test_the_shipped_rows_are_the_papers() -> None:
    rows = {row.name: row for row in read_rows(SHIPPED)}
    configs = {name: load_config(DEMO, row.settings) for name, row in rows.items()}
    assert [row.group for row in rows.values()] == ["masking"] * 2 + ["scale"] * 3 + ["tasks"] * 7
    assert configs["masking_1_random"].kaleido.masking == "random" and rows["masking_2_guided"].needs == "alignment"
    assert configs["scale_1_fixed"].kaleido.grids == (5,) and rows["scale_2_kaleido"].needs == "unlocked"
    tasks = [configs[name].kaleido.tasks for name in rows if name.startswith("tasks")]
    assert [len(some) for some in tasks] == [0, 1, 2, 3, 4, 5, 1] and tasks[-1] == ("blank_to_color",)
    assert tasks[5] == load_config(DEMO).kaleido.tasks
    assert [row.name for row in read_rows(SHIPPED, ["tasks_1_none"])] == ["tasks_1_none"]


@pytest.mark.parametrize(("text", "message"), [
    ("kaleido: {tasks: []}", "expected a section such as 'ablation: .*found None"),
    ("ablation: {group: a, title: b, needs: luck}", "ablation.needs=luck: unknown; use alignment or unlocked"),
    ("ablation: {group: a, title: b}\nkaleido: 3", "kaleido: expected a section such as .*found 3"),
    ("ablation: {", "cannot be read"),
])
def test_what_is_no_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"no \*.yaml, expected rows"):
        read_rows(tmp_path)
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path)


def test_an_unknown_row_is_named() -> None:
    with pytest.raises(ValueError, match="no row 'tasks'; it has masking_1_random, "):
        read_rows(SHIPPED, ["tasks"])
