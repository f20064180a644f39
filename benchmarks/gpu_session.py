"""Everything that needs a GPU, in one command of about eight minutes and one JSON file: environment, kernels, training steps,
the loop under DeepSpeed from a store that is drawn, tests on the device, compute-sanitizer, and the plain path and Hugging
Face's VisualBERT beside ours.

    pip install --no-deps --no-build-isolation -e .
    python benchmarks/gpu_session.py --out benchmarks/results/gpu-h100.json
    python benchmarks/render.py

torch, triton, numpy and pytest are all it needs; what lacks another package is named in the file. On a machine that reaches
nothing, bring the packages as wheels, which are fetched elsewhere:

    python benchmarks/gpu_session.py --wheels .whl --python 3.12
    pip install -q --no-deps --no-build-isolation -e . && python benchmarks/gpu_session.py --install .whl --minutes 8

The most valuable parts come first. Each runs in a process of its own with a deadline, and a figure is written when it is
there: what fails or is cut costs no other. Exit code 1 where one failed.
"""

import sys
from pathlib import Path
from typing import Any

from kaleido_fast.bench.session.program import main


def load_config() -> Any:
    """config.load_config, which needs pydantic and PyYAML."""
    from kaleido_fast.config import load_config

    return load_config


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve(), __doc__ or "", load_config))
