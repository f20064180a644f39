"""The benchmark's cases: all ways do the same work, and the floor is what the tensors weigh."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule

from kaleido_fast.bench.kernel_cases import Scale, kernel_cases
from kaleido_fast.bench.kernels import bench_kernels, kernel_table, measure_case

CPU = torch.device("cpu")
SMALL = Scale(samples=16, image_size=60, patch_size=12, hidden=32, rows=20, features=40, dtype=torch.float32)


@pytest.mark.parametrize("name", list(kernel_cases(CPU, SMALL)))
def test_ours_and_the_reference_give_the_same(name: str) -> None:
    calls = kernel_cases(CPU, SMALL)[name]().calls
    ours, plain = (_tensors(calls[way]()) for way in ("kaleido_fast", "eager"))
    for left, right in zip(ours, plain, strict=False):  # of softmax_kl ours has a gradient too
        torch.testing.assert_close(left, right)


def test_separate_resizes_make_the_same_patches_before_turns_and_greys() -> None:
    calls = kernel_cases(CPU, SMALL)["cut"]().calls
    ours = calls["kaleido_fast"]().view(16, 57, 3, 12, 12)[:, 1:55]
    torch.testing.assert_close(ours, calls["resizes"]()[:, 1:55], rtol=1e-5, atol=1e-5)


def test_floors_count_what_is_read_and_written() -> None:
    cases = {name: make() for name, make in kernel_cases(CPU, SMALL).items()}
    assert cases["cut"].floor_bytes == 16 * 60 * 60 * 3 + 16 * 57 * 12 * 12 * 3 * 4
    assert cases["softmax_kl"].floor_bytes == 3 * 20 * 40 * 4


def test_a_case_becomes_figures_and_a_table() -> None:
    case = kernel_cases(CPU, SMALL)["softmax_kl"]()
    del case.calls["compiled"]  # seconds of a compiler's time
    found = measure_case(case, CPU, roof=10.0, rounds=2)
    eager = found["ways"]["eager"]
    assert eager["gbps"] == pytest.approx(case.floor_bytes / eager["median_ms"] / 1e6)
    assert eager["share_of_copy"] == pytest.approx(eager["gbps"] / 10.0)
    assert found["ways"]["kaleido_fast"]["times_ours"] == 1.0
    assert "| softmax_kl | M=20 F=40 | eager |" in kernel_table({"copy_gbps": 10.0, "kernels": {"softmax_kl": found}})


def test_a_way_that_breaks_is_a_line_and_ours_was_told_before() -> None:
    def broken() -> None:
        raise RuntimeError("no such kernel\nmore")

    case = kernel_cases(CPU, SMALL)["softmax_kl"]()
    case.calls["compiled"], told = broken, []
    found = measure_case(case, CPU, 10.0, 1, lambda figures: told.append((list(figures["ways"]), dict(figures["left_out"]))),
                         {"other": "not asked for"})
    assert told[0] == (["kaleido_fast"], {"other": "not asked for"}) and told[-1][0] == ["kaleido_fast", "eager"]
    assert found["left_out"] == {"other": "not asked for", "compiled": "RuntimeError: no such kernel"}
    table = kernel_table({"copy_gbps": 10.0, "kernels": {"softmax_kl": found}})
    assert "| softmax_kl | M=20 F=40 | compiled | not measured: RuntimeError: no such kernel | | | |" in table


def test_what_a_gpu_does_faster_than_a_host_launches_it_is_replayed() -> None:
    cases = {name: make() for name, make in kernel_cases(CPU, SMALL).items()}
    assert {name for name, case in cases.items() if "kaleido_fast" in case.replayed} == {"plan", "embed"}


@pytest.mark.parametrize("name", ["cut", "embed", "embed_backward", "softmax_kl"])
def test_a_compiled_reference_is_a_graph_of_a_few_hundred_nodes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows: a graph that grows with them takes a compiler hours."""
    nodes: list[int] = []

    def count(graph: GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        nodes.append(len(graph.graph.nodes))
        return graph.forward

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(
        function, backend=aot_autograd(fw_compiler=count), **options))
    torch._dynamo.reset()
    scale = replace(SMALL, samples=16, hidden=768, dtype=torch.bfloat16)  # 18 pieces of dropout's counters
    kernel_cases(CPU, scale)[name]().calls["compiled"]()
    assert 10 < sum(nodes) < 400, nodes


def test_an_unknown_case_is_named() -> None:
    with pytest.raises(ValueError, match="unknown case 'cutt'; known are plan, cut, embed"):
        bench_kernels(CPU, ["cutt"], SMALL)


def _tensors(result: object) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else [x for x in result if isinstance(x, torch.Tensor)]
