"""Does the race check see a missing barrier?

Each barrier of two kernels is taken out in turn: with it there is nothing to say.
"""

from collections.abc import Callable

import pytest

from kaleido_fast.bench.ptx.driver import EmulatedDevice, emulated
from kaleido_fast.bench.ptx.program import Instruction
from kaleido_fast.kernels.cut_triton import cut_triton
from kaleido_fast.kernels.softmax_kl_triton import softmax_kl_triton
from tests.kernels.cut_cases import tasks_of
from tests.kernels.test_cut_triton import batch, options
from tests.kernels.test_softmax_kl_triton import batch as logits

NOTHING = Instruction(None, False, "mov.u32", ("%nothing", "0"), "", "a barrier was here")
MOST = 6  # barriers of a kernel that are tried


def softmax_kl() -> None:
    softmax_kl_triton(*logits(1, 2048))


def cut() -> None:
    tasks = tasks_of((1,), 0)
    cut_triton(*batch(1, 130, tasks), **options((1,), 16, tasks))


def races(device: EmulatedDevice, launch: Callable[[], None]) -> list[str]:
    device.forget()
    launch()
    return [report for report in device.reports if "RACE" in report]


@pytest.mark.slow
@pytest.mark.parametrize("launch", [softmax_kl, cut])
def test_each_barrier_is_missed(launch: Callable[[], None]) -> None:
    with emulated(90) as device:
        assert not races(device, launch) and not device.reports
        ((ptx, program),) = device.programs.items()
        barriers = [number for number, instruction in enumerate(program.instructions) if instruction.opcode == "bar.sync"]
        assert len(barriers) >= 2
        seen = []
        for number in barriers[:MOST]:
            barrier = program.instructions[number]
            device.replace(ptx, number, NOTHING)
            seen.append(bool(races(device, launch)))
            device.replace(ptx, number, barrier)
    assert all(seen), seen
