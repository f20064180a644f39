"""A made run folder with every file that a report reads."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from kaleido_fast.config import build_config
from kaleido_fast.model.task_table import PAPERS_TASKS
from kaleido_fast.settings import as_yaml

NAMES = ("amlm", "itm", *PAPERS_TASKS)
CLASSES = ("amlm", "itm", "rotation", "jigsaw", "camouflage")


def _jpeg(colour: tuple[int, int, int]) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(stream, "JPEG")
    return base64.b64encode(stream.getvalue()).decode()


def _metrics() -> list[dict]:
    lines: list[dict] = []
    for step in range(10, 610, 10):
        losses = dict.fromkeys(NAMES, 3.0 * 0.995 ** step + 0.1 * (step % 30) / 30)
        lines.append(
            {
                "step": step,
                "samples": 64 * step,
                "losses": {"total": sum(losses.values())} | losses,
                "accuracy": dict.fromkeys(CLASSES, 1 - 0.9 * 0.996 ** step),
                "learning_rate": 1e-3,
                "grad_norm": 1.5,
                "samples_per_s": 117.5 + step % 3,
                "data_wait_share": 0.034,
                "seconds": 5.0,
            }
        )
        if step % 100 == 0:
            report = {
                "losses": dict.fromkeys(NAMES, 3.1 * 0.9955 ** step),
                "accuracy": dict.fromkeys(CLASSES, 0.5),
            }
            lines.append({"step": step, "validation": report})
    return lines


def _evaluation() -> dict:
    def recalls(first: float) -> dict:
        return {
            "R@1": first,
            "R@5": 0.5432,
            "R@10": 0.6789,
            "R@100": 1.0,
            "queries": 123,
            "candidates": 101,
            "draws": 1,
        }

    def probe(start: float) -> dict:
        return {
            given: {
                "accuracy": start + i / 100,
                "macro_f1": start - 0.1 + i / 100,
                "macro_f1_all": start - 0.2 + i / 100,
                "most_frequent": 0.4321,
                "strength": 0.01,
            }
            for i, given in enumerate(("image", "text", "both"))
        }

    tasks = {
        "rotation": 0.8765,
        "jigsaw": 0.4567,
        "camouflage": 0.7654,
        "grey_to_color": 0.3456,
        "blank_to_color": 0.5678,
    }
    return {
        "sum_r": 345.6,
        "itr": recalls(0.2345),
        "tir": recalls(0.3456),
        "category": probe(0.9123),
        "subcategory": probe(0.6123),
        "tasks": tasks,
        "tasks_level_alone": {name: value / 2 for name, value in tasks.items()},
        "tasks_samples": 777,
        "probe": {"train_products": 2001, "validation_products": 202, "test_products": 803},
        "broken": {"photograph 17-0": "bytes do not match"},
    }


def _examples() -> dict:
    def product(number: int, right: bool) -> dict:
        return {
            "id": str(number),
            "text": f"A <b>blue</b> shirt no. {number} & more",
            "picture": f"{number}/0",
            "score": 5.5 - number,
            "right": right,
        }

    example = {
        "query": product(2, True),
        "rank": 3,
        "candidates": 101,
        "top": [product(n, n == 2) for n in range(5)],
    }
    pictures = {f"{n}/0": _jpeg((40 * n, 90, 200)) for n in range(5)}
    return {"itr": [example], "tir": [example, example], "pictures": pictures}


@pytest.fixture
def made_run(tmp_path: Path) -> Path:
    """A finished and evaluated run whose shards are gone."""
    folder = tmp_path / "made"
    folder.mkdir()
    config = build_config(
        {"train": {"steps": 600}, "model": {"hidden": 128, "heads": 4}, "data": {"shards": "/nowhere/shards"}}
    )
    (folder / "config.yaml").write_text(as_yaml(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _metrics()))
    (folder / "eval.json").write_text(json.dumps(_evaluation()))
    (folder / "examples.json").write_text(json.dumps(_examples()))
    (folder / "summary.json").write_text(
        json.dumps(
            {
                "progress": {"step": 600},
                "data": {
                    "train_samples": 4321,
                    "train_products": 1234,
                    "skipped": {"broken photograph": 7},
                    "num_holes": 1,
                    "holes": {"12": "train-000000.tar, sample 12"},
                },
                "picked": {"device": "cpu", "attention": "sdpa"},
                "versions": {"torch": "2.13.0"},
            }
        )
    )
    return folder
