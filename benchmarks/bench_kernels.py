"""The kernels under pytest-benchmark, for statistics over time and comparisons between commits; CUDA only.

    pytest benchmarks/bench_kernels.py --benchmark-enable --benchmark-json=kernels.json

`kaleido-fast bench kernels` times the same cases, alternating with their baselines.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from kaleido_fast.bench.kernel_cases import Scale, kernel_cases

pytestmark = pytest.mark.gpu
CASES = tuple(kernel_cases(torch.device("cpu"), Scale()))
WAYS = [(name, way) for name in CASES for way in ("kaleido_fast", "eager", "compiled")] + [("cut", "resizes")]


@pytest.mark.parametrize("name, way", WAYS)
def test_kernel(benchmark: BenchmarkFixture, name: str, way: str) -> None:
    case = kernel_cases(torch.device("cuda"), Scale())[name]()

    def timed() -> None:
        case.calls[way]()
        torch.cuda.synchronize()

    benchmark.extra_info |= {"shape": case.shape, "floor_bytes": case.floor_bytes}
    benchmark.pedantic(timed, rounds=20, iterations=3, warmup_rounds=3)
