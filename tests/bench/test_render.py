"""bench.md says what the result files say."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("render", ROOT / "benchmarks" / "render.py")
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)

WAY = {"median_ms": 0.5, "min_ms": 0.4, "max_ms": 0.7, "peak_mib": 1.0, "gbps": 2400.0, "share_of_copy": 0.8, "times_ours": 1.0}
CASE = {"shape": "B=1024", "floor_bytes": 1, "goal_share": 0.7, "ways": {"kaleido_fast": WAY}}
PARTS = {
    "environment": {"ok": True, "result": {"gpu": "A card", "packages": {"torch": "2.11.0", "triton": "3.6.0"}, "commit": "abc"}},
    "tests": {"ok": True}, "sanitizer": {"ok": True},
    "kernels": {"ok": True, "result": {"copy_gbps": 3000.0, "kernels": {"cut": CASE}}},
}


def write(folder: Path, parts: dict) -> str:
    (folder / "gpu-a.json").write_text(json.dumps({"parts": parts}))
    return page.render(folder)


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert (ROOT / "bench.md").read_text(encoding="utf-8") == page.render(), "run python benchmarks/render.py"


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert page.render(tmp_path).count("Not measured yet.") >= 2


def test_figures_come_from_the_file(tmp_path: Path) -> None:
    text = write(tmp_path, PARTS)
    assert "| cut | B=1024 | ours | 0.500 | 2,400 | 80% | 70% | 1.00 |" in text
    assert "### A card" in text and "commit abc" in text


def test_a_red_test_prints_no_figure(tmp_path: Path) -> None:
    text = write(tmp_path, PARTS | {"tests": {"ok": False, "output": "1 failed"}})
    assert "No figures: tests did not pass on this device." in text and "2,400" not in text


def test_machine_code_comes_from_the_audit(tmp_path: Path) -> None:
    row = {"kernel": "cut", "sm": 90, "registers": 64, "spills": 0, "shared_bytes": 512, "loads": {"8": 1, "128": 4},
           "stores": {"128": 2}, "tensor_core_instructions": 7}
    (tmp_path / "compiled.json").write_text(json.dumps({"versions": {"triton": "3.6.0"}, "kernels": [row]}))
    text = page.render(tmp_path)
    assert "Built ahead of time by Triton 3.6.0" in text
    assert "| cut | 90 | 64 | 0 | 512 | 8: 1, 128: 4 | 128: 2 | 7 |" in text
