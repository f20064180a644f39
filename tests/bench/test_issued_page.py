"""The section of bench.md on what kernels issue: two times, the larger named, and goals that it forbids."""

import json
from pathlib import Path

from benchmarks import render as page
from tests.bench.test_render import CASE, PARTS, ok, write

KERNEL = {"case": "cut bf16", "kernel": "cut", "sm": 90, "unit": "sample", "warp_instructions": 556200.0,
          "warp_instructions_of_ptx": 600000.0, "bytes_read": 6000000.0, "bytes_written": 790000.0, "barriers": 1148.0}
# 0.6 ms of issuing; memory takes 0.3 ms on an H100.
CUT = {"operation": "cut bf16", "size": "B=1024", "warp_instructions": 556_200_000, "floor_bytes": 900_000_000,
       "goal_share": 0.7}


def counted(folder: Path, **changed: object) -> None:
    (folder / "issued.json").write_text(json.dumps(
        {"versions": {"triton": "3.6.0"}, "operations": [CUT | changed], "kernels": [KERNEL]}))


def test_the_larger_time_is_the_bound(tmp_path: Path) -> None:
    counted(tmp_path)
    text = page.render(tmp_path)
    assert ("| cut bf16 | B=1024 | 0.600 | 0.300 | 0.209 | H100: issuing, H200: issuing | 50% | 35% | "
            "70%: out of reach on H100 and H200 |") in text
    assert "| cut bf16 | cut | 90 | sample | 556,200 | 600,000 | 6,000,000 | 790,000 | 1,148.0 |" in text
    counted(tmp_path, warp_instructions=200_000_000)
    text = page.render(tmp_path)
    assert "| 0.216 | 0.300 | 0.209 | H100: memory, H200: issuing | 100% | 97% | 70% |" in text


def test_a_measured_operation_says_which_goal_issuing_forbids(tmp_path: Path) -> None:
    counted(tmp_path)
    assert "| 80% | 70% | 1.00 |" in write(tmp_path, PARTS)  # a card of which nothing is known
    h100 = ok({"gpu": "NVIDIA H100 80GB HBM3", "packages": {}, "commit": "abc"})
    assert "| 80% | 70%, out of reach: issuing leaves 50% | 1.00 |" in write(tmp_path, PARTS | {"environment": h100})
    no_goal = ok({"copy_gbps": 3000.0, "rounds": 7, "kernels": {"cut": CASE | {"goal_share": None}}})
    assert "| 80% |  | 1.00 |" in write(tmp_path, PARTS | {"environment": h100, "kernels": no_goal})
    (tmp_path / "issued.json").unlink()
    assert "| 80% | 70% | 1.00 |" in write(tmp_path, PARTS | {"environment": h100})
