"""Do the checks see what they are for? Compiled programs with one fault each, put in one after the other."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kaleido_fast.bench.ptx.driver import EmulatedDevice, emulated
from kaleido_fast.bench.ptx.memory import OutOfBounds
from kaleido_fast.bench.ptx.program import Instruction
from kaleido_fast.kernels.cut_triton import cut_triton
from kaleido_fast.kernels.embed_backward_triton import embed_backward_triton
from kaleido_fast.kernels.embed_triton import cumulative_lengths
from kaleido_fast.kernels.softmax_kl_triton import softmax_kl_triton
from tests.compiled.ptx.cases import SLOW
from tests.kernels.cut_cases import tasks_of
from tests.kernels.embed_cases import KEY, kernel_case
from tests.kernels.guards import Guards
from tests.kernels.test_cut_triton import batch, options
from tests.kernels.test_embed_backward_triton import incoming
from tests.kernels.test_softmax_kl_triton import batch as logits

NOTHING = Instruction(None, False, "mov.u32", ("%nothing", "0"), "", "something was here")


def softmax_kl(rows: int = 1, features: int = 2048) -> list[Tensor]:
    """With room round every tensor, so that what lies beyond one is not another; no warp's logits are like another's."""
    prediction, target, weight = logits(rows, features)
    with Guards() as guards:
        tensors = map(guards.place, (prediction.sort(dim=1).values, target.sort(dim=1).values, weight))
        return list(softmax_kl_triton(*tensors))


def cut() -> None:
    tasks = tasks_of((1,), 0)
    cut_triton(*batch(1, 130, tasks), **options((1,), 16, tasks))


def gradients() -> None:
    inputs, num_packed, grids, dropout = kernel_case("base width, fp16")
    embed_backward_triton(incoming(num_packed, inputs), inputs, grids, dropout, KEY)


def cumulative() -> None:
    cumulative_lengths(torch.full((2048,), 3, dtype=torch.int32), 55)


class Mutated:
    """A launch that runs again and again, each time with one other instruction in one of its programs."""

    def __init__(self, device: EmulatedDevice, launch: Callable[[], object]) -> None:
        self.device, self._launch = device, launch
        self.launch()
        assert not device.reports
        self.places = [(ptx, number) for ptx, program in device.programs.items() for number in range(len(program.instructions))]

    def launch(self) -> list[str]:
        """What is reported."""
        self.device.forget()
        self._launch()
        return list(self.device.reports)

    def those(self, fits: Callable[[Instruction], bool]) -> list[tuple[str, int]]:
        """Places of instructions."""
        return [place for place in self.places if fits(self.at(*place))]

    def at(self, ptx: str, number: int) -> Instruction:
        return self.device.programs[ptx].instructions[number]

    @contextmanager
    def broken(self, place: tuple[str, int], fault: Instruction) -> Iterator[None]:
        whole = self.at(*place)
        self.device.replace(*place, fault)
        yield
        self.device.replace(*place, whole)


@contextmanager
def mutated(launch: Callable[[], object]) -> Iterator[Mutated]:
    with emulated(90) as device:
        yield Mutated(device, launch)


@pytest.mark.parametrize("launch", [softmax_kl, cumulative, pytest.param(cut, marks=SLOW), pytest.param(gradients, marks=SLOW)])
def test_each_barrier_is_missed(launch: Callable[[], object]) -> None:
    with mutated(launch) as program:
        barriers = program.those(lambda instruction: instruction.opcode == "bar.sync")
        if launch is gradients:  # three samples' lengths turn no loop twice; `cumulative` does
            barriers = [(ptx, at) for ptx, at in barriers if program.device.programs[ptx].name != "_cumulative_kernel"]
        assert len(barriers) >= 2
        for place in barriers:
            with program.broken(place, NOTHING):
                reports = program.launch()
            assert any("RACE" in report for report in reports), program.at(*place).where


def in_memory(space: str, *opcodes: str) -> Callable[[Instruction], bool]:
    return lambda instruction: instruction.opcode.split(".")[0] in opcodes and space in instruction.opcode.split(".")


def shifted(instruction: Instruction) -> Instruction:
    """The access one element (of 16 bytes: eight values) further on."""
    by = 16 if "v4" in instruction.opcode else 4
    operands = tuple(re.sub(r"\+ (\d+) \]$", lambda offset: f"+ {int(offset[1]) + by} ]", operand)
                     for operand in instruction.operands)
    assert operands != instruction.operands, instruction.text
    return replace(instruction, operands=operands)


def test_an_access_beyond_a_tensor_is_refused() -> None:
    """One row of 2,048 fills its program, whose last lane then reaches past it."""
    with mutated(softmax_kl) as program:
        accesses, refused = program.those(in_memory("global", "ld", "st")), 0
        for place in accesses:
            with program.broken(place, shifted(program.at(*place))):
                refused += refuses(program)
        # Of the vectors that a thread has of a row, the last one's next is nobody's.
        assert len(accesses) > refused >= len(accesses) / 2


def refuses(program: Mutated) -> bool:
    try:
        program.launch()
    except OutOfBounds:
        return True
    return False


def test_each_mask_left_out_is_refused() -> None:
    """Of nine rows eight to a program: the second has one, and seven that are nobody's."""
    with mutated(lambda: softmax_kl(9, 192)) as program:
        guarded = [place for place in program.those(in_memory("global", "ld", "st")) if program.at(*place).predicate]
        assert len(guarded) >= 6
        for place in guarded:
            with program.broken(place, replace(program.at(*place), predicate=None)):
                assert refuses(program), program.at(*place).where


def test_each_store_left_out_is_seen() -> None:
    """To shared memory: somebody reads what nobody wrote, or what an earlier sum left there. To global memory: poison stays."""
    with mutated(softmax_kl) as program:
        shared, to_global = (program.those(in_memory(space, "st")) for space in ("shared", "global"))
        loss, gradient = softmax_kl()
        unwritten = 0
        for place in shared:
            with program.broken(place, NOTHING):
                program.device.forget()
                others = softmax_kl()
                seen = any("nobody wrote" in report for report in program.device.reports)
                assert seen or not (torch.equal(others[0], loss) and torch.equal(others[1], gradient)), program.at(*place).where
                unwritten += seen
        assert unwritten
        for place in to_global:
            with program.broken(place, NOTHING):
                assert any(result.isnan().any() for result in softmax_kl()), program.at(*place).where
