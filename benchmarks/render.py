"""Render bench.md from benchmarks/results/*.json; nothing in it is typed by hand.

    python benchmarks/render.py            write bench.md
    python benchmarks/render.py --check    exit code 1 where bench.md is not what the files say
"""

import json
import sys
from functools import partial
from pathlib import Path

from kaleido_fast.bench.page.cpu import training_cpu_text
from kaleido_fast.bench.page.gpu import kernels_text, of_all, training_text
from kaleido_fast.bench.page.issued import issued_text, largest_shares
from kaleido_fast.bench.page.search import queries_text, speed_text
from kaleido_fast.bench.page.studies import alignment_text, compiled_text, ledger_text, masking_text, memory_text

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "bench.md"


def render(results: Path = HERE / "results") -> str:
    """The page."""
    gpu = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("gpu*.json"))}
    parts = [
        "# Benchmarks",
        "Rendered by `python benchmarks/render.py` from `benchmarks/results/*.json`, which commands in this repository "
        "wrote. What has no file says so.",
        "## Kernels on a GPU", of_all(gpu, partial(kernels_text, shares=largest_shares(results / "issued.json"))),
        "## Kernels, what they issue at least", issued_text(results / "issued.json"),
        "## Kernels, machine code", compiled_text(results / "compiled.json"),
        "## Training on a GPU", of_all(gpu, training_text),
        "## Training on a CPU", training_cpu_text(results / "training-cpu.json"),
        "## What was changed for speed", ledger_text(results / "ledger.json"),
        "## Alignments against the true parts of a generated catalogue", alignment_text(results / "alignment.json"),
        "## Guided against random masking on a real catalogue", masking_text(results / "masking.json"),
        "## Search: fifty queries on a real catalogue", queries_text(results / "search-queries.json"),
        "## Search: time and memory on a CPU", speed_text(results / "search-speed.json"),
        "## Memory of training steps against the estimate, on a CPU", memory_text(results / "estimate-cpu.json"),
        "## Method",
        "Ways to do the same work are timed in one process, in turn, and the median of the rounds is given; a round is "
        "enough calls to fill 5 ms, timed by CUDA events. `floor` is the bytes that must be read and written at least; a "
        "copy on the device, measured in the same run, is the roof. Tests on the device and compute-sanitizer run in the same "
        "session: where one fails or does not run, a line above the figures says so.",
        "Training steps: a round of each way takes the same optimizer steps' micro-batches, uploaded before. All ways draw the "
        "plan, cut and encode patches or read them from store rows, clip, and step fused AdamW; VisualBERT is Hugging "
        "Face's body under our heads and losses. GFLOP a sample and utilisation: the formula in kaleido_fast/bench/flops.py, "
        "forward and backward, the patch encoder behind the plus; the peak is a matrix product measured in the same run. The "
        "loop: segments of `pretrain`'s loop and of its step on the same batches kept on the device take turns.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    page = render()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page else "bench.md is not what benchmarks/results say; run "
                 "python benchmarks/render.py")
    PAGE.write_text(page, encoding="utf-8")
