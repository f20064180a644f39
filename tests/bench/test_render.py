"""bench.md says what the result files say."""

import json
from pathlib import Path

from benchmarks import render as page
from tests.places import REPO

WAY = {"median_ms": 0.5, "min_ms": 0.4, "max_ms": 0.7, "peak_mib": 1.0, "gbps": 2400.0, "share_of_copy": 0.8, "times_ours": 1.0,
       "timed": "calls"}
CASE = {"shape": "B=1024", "floor_bytes": 1, "goal_share": 0.7, "ways": {"kaleido_fast": WAY}, "left_out": {}}


def ok(result: dict) -> dict:
    return {"status": "ok", "result": result, "failed": {}}


PARTS = {
    "environment": ok({"gpu": "A card", "packages": {"torch": "2.11.0", "triton": "3.6.0"}, "commit": "abc"}),
    "tests": ok({"passed": 62, "red": []}), "sanitizer": ok({}), "racecheck": ok({}),
    "kernels": ok({"copy_gbps": 3000.0, "rounds": 7, "kernels": {"cut": CASE}}),
}


def write(folder: Path, parts: dict) -> str:
    (folder / "gpu-a.json").write_text(json.dumps({"parts": parts}))
    return page.render(folder)


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert (REPO / "bench.md").read_text(encoding="utf-8") == page.render(), "run python benchmarks/render.py"


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert page.render(tmp_path).count("Not measured yet.") >= 2


def test_figures_come_from_the_file(tmp_path: Path) -> None:
    text = write(tmp_path, PARTS)
    assert "| cut | B=1024 | ours | 0.500 | 2,400 | 80% | 70% | 1.00 |" in text
    assert "A copy: 3,000 GB/s, read and written. Medians of 7 rounds; r:" in text
    assert "### A card" in text and "commit abc" in text


def test_what_failed_is_named_and_what_was_measured_is_printed(tmp_path: Path) -> None:
    assert "did not" not in write(tmp_path, PARTS).split("## Kernels, machine code")[0]
    red = {"status": "failed", "result": {"passed": 61, "red": ["tests/kernels/test_a.py::test_b"]},
           "failed": {"tests": "exit code 1"}}
    text = write(tmp_path, PARTS | {"tests": red})
    assert "- **tests did not pass on this device: tests/kernels/test_a.py::test_b.** Figures of what it checks" in text
    assert "2,400" in text
    text = write(tmp_path, PARTS | {"loop-tests": {"status": "failed", "failed": {"loop-tests": "over 120 s"}}})
    assert "- **loop-tests did not pass on this device: loop-tests: over 120 s.**" in text and "2,400" in text


def test_a_sanitizer_that_could_not_run_has_not_failed(tmp_path: Path) -> None:
    text = write(tmp_path, PARTS | {"sanitizer": {"status": "skipped", "why": "Device not supported"}})
    assert "- sanitizer did not run: Device not supported." in text and "did not pass" not in text and "2,400" in text
    without = {name: part for name, part in PARTS.items() if name != "racecheck"}
    assert "- racecheck did not run: not asked for." in write(tmp_path, without)


def test_a_session_that_was_cut_says_which_figures_are_missing(tmp_path: Path) -> None:
    replayed = WAY | {"timed": "replays"}
    case = CASE | {"ways": {"kaleido_fast": replayed}, "left_out": {"compiled": "RuntimeError: no g++ | none"}}
    kernels = {"status": "failed", "result": {"copy_gbps": 3000.0, "rounds": 7, "kernels": {"plan": case}},
               "failed": {"cut": "over 40 s", "embed": "not begun"}}
    text = write(tmp_path, PARTS | {"kernels": kernels, "step-base": {"status": "running", "result": {}, "failed": {}}})
    assert "| plan | B=1024 | ours | 0.500 r | 2,400 |" in text and "r: replays of a CUDA graph" in text
    assert "| plan | B=1024 | reference, compiled | Not measured yet. (RuntimeError: no g++ / none) |" in text
    assert "| cut | | | Not measured yet. (over 40 s) |" in text and "| embed | | | Not measured yet. (not begun) |" in text
    assert "- kernels: cut: over 40 s; embed: not begun." in text and "- step-base: was cut." in text
    nothing = {"status": "failed", "result": {}, "failed": {"kernels": "exit code 1"}}
    assert "- kernels: kernels: exit code 1.\n\nNot measured yet." in write(tmp_path, PARTS | {"kernels": nothing})


def test_machine_code_comes_from_the_audit(tmp_path: Path) -> None:
    row = {"kernel": "cut", "sm": 90, "registers": 64, "spills": 0, "shared_bytes": 512, "loads": {"8": 1, "128": 4},
           "stores": {"128": 2}, "tensor_core_instructions": 7}
    (tmp_path / "compiled.json").write_text(json.dumps({"versions": {"triton": "3.6.0"}, "kernels": [row]}))
    text = page.render(tmp_path)
    assert "Built ahead of time by Triton 3.6.0" in text
    assert "| cut | 90 | 64 | 0 | 512 | 8: 1, 128: 4 | 128: 2 | 7 |" in text


STEP = {"rounds": 5, "micro_batch": 256, "accumulation": 1, "precision": "bf16", "text_tokens": {"median": 64.0},
        "samples_per_s": 4321.0, "tokens_per_s": 514199.0, "gflops_a_sample": 64.1, "patch_gflops_a_sample": 0.0,
        "peak_tflops": 395.0, "utilisation": 0.41, "patch_utilisation": 0.0, "peak_gib": 31.5,
        "profile": [{"name": "gemm|x", "ms_a_step": 1.5, "calls_a_step": 12}],
        "texts": "drawn; median 64", "words": 5120,
        "ways": {"kaleido_fast": {"median_ms": 50.0, "min_ms": 49.0, "max_ms": 51.0, "times_ours": 1.0},
                 "reference": {"median_ms": 120.0, "min_ms": 119.0, "max_ms": 121.0, "times_ours": 2.4}}}


LOOP = {"samples_per_s": 90.0, "step_samples_per_s": 100.0, "share_of_step": 0.9, "data_wait_share": 0.01, "peak_gib": None}


def test_training_stands_beside_its_goals(tmp_path: Path) -> None:
    step = STEP | {"attention": "varlen, torch varlen_attn (xformers is installed and does not load: no libcudart)",
                   "compile": True, "left_out": {"ours-varlen": "that is ours"}}
    others = {"status": "failed", "failed": {"visualbert-compiled": "over 100 s"}, "result": {
        "ways": {"kaleido_fast": STEP["ways"]["kaleido_fast"], "ours-eager": {"median_ms": 75.0, "times_ours": 1.5}},
        "left_out": {"visualbert": "transformers is not installed"}}}
    parts = {"step-base": ok(step), "baselines-base": others,
             "end-to-end": {"status": "skipped", "why": "nvidia.dali not installed"},
             "loop": ok(LOOP | {"steps": 60, "waits": {"utils/timer.py": 4}})}
    text = write(tmp_path, PARTS | parts)
    assert "| base | 256 x 1, bf16 | 64 | 4,321.0 | 2,875 | 514,199 | 64.1 | 41.0% of 395 | 31.50 |" in text  # half an H100
    assert "Medians of 5 rounds." in text
    assert "Attention of base: varlen, torch varlen_attn (xformers is installed and does not load: no libcudart), comp" in text
    assert "| base | reference path | 120.0 | 2.40 | 2.0 |" in text and "| `gemm x` | 1.50 | 12 |" in text
    assert "| base | VisualBERT, eager | Not measured yet. (transformers is not installed)" in text
    assert "| base | VisualBERT, compiled | Not measured yet. (over 100 s)" in text
    assert "| base | ours-eager | 75.0 | 1.50 |" in text
    assert "that is ours" not in text and text.count("| base | ours |") == 1
    assert "- end-to-end: nvidia.dali not installed." in text
    assert "Waits for all work of the GPU: 4 in 60 steps of the loop from the drawn store, 4 in utils/timer.py." in text
    assert "| drawn store | 90.0 | 100.0 | 90.0% | 97% | 1.00% | 0.00 |" in text


def test_training_on_a_cpu_and_the_ledger(tmp_path: Path) -> None:
    found = {"threads": 1, "rounds": 9, "goals": {"speedup_over_reference": 1.25, "packing": 0.9},
             "shapes": {"demo": STEP, "base": None},
             "packing": {"text_tokens": [12, 16], "padded_to": 64, "speed_ratio": 1.7, "flop_ratio": 1.8, "share": 0.944},
             "stored_dtype": "fp16", "stored_loss_difference": 1.7e-4, "stored_loss_bound": 1e-3,
             "encode": {"photographs_per_s": 125.0},
             "loader": {kind: {"samples_per_s": 700.0, "ms_a_batch": 45.7, "first_epoch_samples_per_s": first}
                        for kind, first in (("store", 300.0), ("photographs", None))},
             "end_to_end": {"store": LOOP, "photographs": LOOP}}
    (tmp_path / "training-cpu.json").write_text(json.dumps(found))
    (tmp_path / "ledger.json").write_text(json.dumps(
        [{"change": "packed rows", "before": "9 ms", "after": "5 ms", "cause": "no padding"}]))
    text = page.render(tmp_path)
    assert "1 thread, 5 rounds; texts drawn" in text, "the rounds of the shapes, not what was asked for"
    assert "| base | Not measured yet. |" in text and "| demo | reference path | 120.0 | 119.0 | 121.0 | 2.40 |" in text
    assert "takes 1.70 times as long, for 1.80 times the FLOPs: 94.4% (goal 90%)" in text
    assert "within 0.00017 of those with computed ones (bound 0.001)" in text
    assert "| store | 700 | 45.70 | 300 |" in text and "| photographs | 700 | 45.70 |  |" in text
    assert "| store | 90.0 | 100.0 | 90.0% |  | 1.00% | 0.00 |" in text and "| packed rows | 9 ms | 5 ms | no padding |" in text


def test_search_says_what_was_found_and_how_fast(tmp_path: Path) -> None:
    result = {"share": 0.7, "by_chance": 0.11, "precision": 0.31, "pictured": 0.26, "queries": [{}] * 50}
    (tmp_path / "search-queries.json").write_text(json.dumps(
        {"k": 10, "rerank": 128, "products": 1656, "model": "ab" * 32, "against": {"both": result}}))
    timed = {"memory_mib": 3000.4, "queries_ms": {"photographs": {"p50": 99.6, "p95": 120.2}}}
    (tmp_path / "search-speed.json").write_text(json.dumps({"numbers": 256, "threads": 2, "cores": 2, "indexes": {
        "1000000": {"disk_mib": 1100, "exact": timed, "approximate": timed | {"recall": {"photographs": 0.96}}}}}))
    text = page.render(tmp_path)
    assert "50 queries in a shopper's words against 1,656 products of the test split, the first 128 ranked again" in text
    assert "| both | 70% | 11% | 31% | 26% |" in text and "threads: 2, cores: 2" in text
    assert "| 1,000,000 | exact | photographs | 100 | 120 | 3,000 | 1,100 | 1 |" in text
    assert "| 1,000,000 | approximate | photographs | 100 | 120 | 3,000 | 1,100 | 96.0% |" in text
