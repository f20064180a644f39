"""Kernel benchmarks for a GPU, under pytest-benchmark.

    python -m pytest benchmarks/bench_kernels.py --benchmark-enable --benchmark-json=kernels.json

`extra_info` holds the interleaved times beside the baselines, from timing.py; what pytest-benchmark itself times is the
kernel alone, host included. `kaleido-fast bench kernels` needs no pytest.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.kernel_cases import CASES, KERNEL, Sizes
from benchmarks.timing import measure

pytestmark = [
    pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, none found")
]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_kernel(make: object, benchmark: BenchmarkFixture) -> None:
    case = make(Sizes(), "cuda")
    benchmark.extra_info.update(measure(case).as_row())

    def call() -> None:
        case.runs[KERNEL]()
        torch.cuda.synchronize()

    benchmark.pedantic(call, rounds=50, iterations=1, warmup_rounds=5)
