"""The audit itself, on toy kernels whose machine code is known by hand."""

import dataclasses

import pytest
import triton
import triton.language as tl

from benchmarks.compiled.audit import ARCHITECTURES, Build, audit, problems, read_code


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + place, tl.load(x_ptr + place, mask=place < n, other=0), mask=place < n)


@triton.jit
def product_kernel(x_ptr, out_ptr, SIDE: tl.constexpr):
    place = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    x = tl.load(x_ptr + place)
    tl.store(out_ptr + place, tl.dot(x, x).to(tl.float16))


COPY = Build(
    name="copy", kernel=copy_kernel, signature={"x_ptr": "*bf16", "out_ptr": "*bf16", "n": "i32"},
    constants={"BLOCK": 1024}, divisible=("x_ptr", "out_ptr", "n"), loads=frozenset({128}), stores=frozenset({128}),
    max_registers=32,
)
PRODUCT = Build(
    name="product", kernel=product_kernel, signature={"x_ptr": "*fp16", "out_ptr": "*fp16"}, constants={"SIDE": 64},
    divisible=("x_ptr", "out_ptr"), loads=frozenset({128}), stores=frozenset({128}), max_registers=128, tensor_cores=True,
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copy_of_eight_values_a_thread_is_one_wide_load_and_store(architecture: int) -> None:
    found = audit(COPY, architecture)
    assert dict(found.loads) == dict(found.stores) == {128: 1}  # 128 threads, 8 bf16 each
    assert (found.spills, found.stack_bytes, found.shared_bytes, found.atomics) == (0, 0, 0, 0)
    assert 0 < found.registers <= 32 and found.tensor_core_instructions == 0
    assert problems(COPY, found) == []


def test_without_divisibility_loads_are_narrow_and_named() -> None:
    narrow = dataclasses.replace(COPY, divisible=("x_ptr", "out_ptr"))
    found = audit(narrow, 90)
    assert dict(found.loads) == {16: 8}
    assert "copy on sm_90: load widths [16], expected [128]" in problems(narrow, found)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensor_cores_and_shared_memory_are_counted(architecture: int) -> None:
    found = audit(PRODUCT, architecture)
    assert found.tensor_core_instructions > 0 and found.shared_bytes >= 64 * 64 * 2
    assert problems(PRODUCT, found) == []
    plain = dataclasses.replace(PRODUCT, tensor_cores=False, max_registers=8)
    assert problems(plain, found) == [
        f"product on sm_{architecture}: tensor cores used True, expected False",
        f"product on sm_{architecture}: {found.registers} registers, at most 8 expected",
    ]


def test_spills_are_seen() -> None:
    code = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 STL.64 [R1], R4 ;
        /*0020*/                   LDL R4, [R1] ;
        /*0030*/                   LDG.E.U8.CONSTANT R6, desc[UR4][R2.64] ;
        /*0040*/              @P1  STG.E desc[UR4][R2.64], R6 ;
        /*0050*/                   LDGSTS.E.BYPASS.LTC128B.128 [R7], [R2.64] ;
        /*0060*/                   NOP;
"""
    found = read_code("spilling", 90, 0, " Function k:\n  REG:255 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:568", code)
    assert (found.registers, found.stack_bytes, found.spills, found.instructions) == (255, 16, 2, 6)
    assert dict(found.loads) == {8: 1, 128: 1} and dict(found.stores) == {32: 1}
    assert "spilling on sm_90: spills and stack (2, 16), expected (0, 0)" in problems(
        dataclasses.replace(COPY, name="spilling"), found
    )


def test_every_parameter_is_named() -> None:
    with pytest.raises(ValueError, match=r"audit: copy: signature and constants must name .* \['n'\] differ"):
        audit(dataclasses.replace(COPY, signature={"x_ptr": "*bf16", "out_ptr": "*bf16"}), 90)
