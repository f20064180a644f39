"""What results/issued.json says of a kernel is what it issues and moves; 5 % more fails, and 5 % less until counted anew."""

import json

import numpy as np
import pytest

from benchmarks.audit_kernels import versions
from benchmarks.bench_issued import RESULTS
from benchmarks.compiled.audit import ARCHITECTURES
from benchmarks.compiled.issued import count, machine_instructions, of_cases, workloads
from benchmarks.compiled.issued_sizes import SIZES, operations
from tests.compiled.ptx.cases import SLOW
from tests.compiled.ptx.programs import program_of

MARGIN = 0.05
FIGURES = ("warp_instructions", "warp_instructions_of_ptx", "bytes_read", "bytes_written", "barriers")
QUICK = {"embed under autocast", "softmax_kl bf16", "softmax_kl bf16 and fp32"}
COUNTED = json.loads(RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name, architecture", [
    pytest.param(name, sm, id=f"{name}, sm_{sm}", marks=() if name in QUICK and sm == 90 else SLOW)
    for name in workloads() for sm in ARCHITECTURES if sm == 90 or name != "cut fp32"  # as cut bf16 but for its stores
])
def test_a_kernel_costs_what_it_did(name: str, architecture: int) -> None:
    if COUNTED["versions"] != versions():
        pytest.skip(f"counted with Triton {COUNTED['versions']['triton']}; another compiler gives other figures")
    budgets = of_cases(COUNTED["kernels"])
    for row in count(name, workloads()[name], architecture):
        budget = budgets[name, row["kernel"], architecture]
        for figure in FIGURES:
            assert row[figure] == pytest.approx(budget[figure], rel=MARGIN), (
                f"{name}, {row['kernel']} on sm_{architecture}: {figure} {row[figure]:,} a {row['unit']}, "
                f"{budget[figure]:,} in {RESULTS.name}; mend it, or run python -m benchmarks.bench_issued and say why")


def test_the_file_is_whole() -> None:
    expected = {(name, kernel.strip("_").removesuffix("_kernel"), architecture)
                for name, workload in workloads().items() for kernel in workload.units for architecture in ARCHITECTURES}
    assert set(of_cases(COUNTED["kernels"])) == expected and set(SIZES) == set(workloads())
    assert COUNTED["operations"] == operations(COUNTED["kernels"])


def test_machine_code_runs_as_often_as_the_line_it_comes_from() -> None:
    """Two turns of a loop of two instructions of PTX, of which the machine makes three."""
    program = program_of("""
.file 1 "/somewhere/toy.py"
.loc 1 3 0
mov.u32 %r2, 0;
$again:
.loc 1 4 0
add.s32 %r2, %r2, 1;
xor.b32 %r3, %r2, 1;
""")
    code = """
        //## File "/elsewhere/toy.py", line 3
        /*0000*/                   MOV R1, RZ ;
        //## File "/elsewhere/toy.py", line 4 inlined at "/elsewhere/other.py", line 9
        /*0010*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0020*/              @!P0 LOP3.LUT R2, R1, 0x1, RZ, 0x3c, !PT ;
        /*0030*/                   IMAD R2, R2, R3, R4 ;
        //## File "/elsewhere/toy.py", line 99
        /*0040*/                   EXIT ;
        /*0050*/                   NOP;
"""
    times = np.array([{"4": 2}.get(instruction.line, 1) for instruction in program.instructions])
    assert machine_instructions(program, times, code) == 1 + 3 * 2 + 2
