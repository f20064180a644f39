"""The emulator itself, on programs worked out by hand: values, divergence, bounds, races, counts."""

from collections.abc import Callable

import numpy as np
import pytest

from kaleido_fast.bench.ptx import block as block_module
from kaleido_fast.bench.ptx.memory import OutOfBounds
from kaleido_fast.bench.ptx.program import parse
from tests.compiled.ptx.programs import floats, run

LANES = np.arange(64, dtype=np.uint32)
WRITE_SHARED = "shl.b32 %r5, %r1, 2;\nmov.u32 %r6, global_smem;\nadd.s32 %r7, %r6, %r5;\nst.shared.b32 [%r7], %r1;\n"
NEIGHBOUR = "xor.b32 %r8, %r5, 128;\nld.shared.b32 %r9, [%r8];\nst.global.b32 [%rd2], %r9;"  # of the other warp


def test_a_shuffle_takes_from_the_partner_and_a_vote_counts() -> None:
    words, reports, _ = run("shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\nst.global.b32 [%rd2], %r2;", LANES)
    assert np.array_equal(words, LANES ^ 1) and not reports
    words, _, _ = run("setp.lt.u32 %p1, %r1, 40;\nvote.sync.ballot.b32 %r2, %p1, -1;\nst.global.b32 [%rd2], %r2;", LANES)
    assert words[0] == 2**32 - 1 and words[32] == 2**8 - 1


def test_threads_that_part_meet_again() -> None:
    code = """
    setp.lt.u32 %p1, %r1, 10;
    @%p1 bra $low;
    mov.b32 %r2, 7;
    bra.uni $end;
$low:
    add.s32 %r2, %r1, 100;
$end:
    add.s32 %r2, %r2, 1;
    st.global.b32 [%rd2], %r2;
"""
    words, _, block = run(code, LANES)
    assert np.array_equal(words, np.where(LANES < 10, LANES + 101, 8))
    assert block.executed["st.global.b32"] == 1  # together again


def test_a_loop_runs_as_often_as_each_thread_asks() -> None:
    code = """
    mov.b32 %r2, 0;
$again:
    add.s32 %r2, %r2, 2;
    setp.lt.s32 %p1, %r2, %r1;
    @%p1 bra $again;
    st.global.b32 [%rd2], %r2;
"""
    words, _, _ = run(code, LANES)
    assert np.array_equal(words, np.maximum(2, LANES + LANES % 2))


@pytest.mark.parametrize("code, what", [
    ("st.global.b32 [%rd2+256], %r1;", "outside of every tensor"),
    ("ld.global.b32 %r2, [%rd2+-4];", "outside of every tensor"),
    ("ld.global.v2.b32 {%r2, %r3}, [%rd2];", "no multiple of it"),
    ("st.shared.b32 [%r1+2048], %r1;", "no multiple of it"),
    ("mov.b32 %r2, 2048;\nst.shared.b32 [%r2], %r1;", "shared bytes 2048"),
])
def test_accesses_outside_or_not_aligned_are_refused_with_their_place(code: str, what: str) -> None:
    with pytest.raises(OutOfBounds, match=f"{what}.*line 7: "):
        run(code, LANES)


def test_a_missing_barrier_is_a_race_and_with_it_there_is_none() -> None:
    words, reports, _ = run(f"{WRITE_SHARED}bar.sync 0;\n{NEIGHBOUR}", LANES)
    assert np.array_equal(words, LANES ^ 32) and not reports
    _, reports, _ = run(WRITE_SHARED + NEIGHBOUR, LANES)
    assert [report.partition(";")[0] for report in reports] == ["RACE: a warp reads what another wrote"]


def test_writing_what_another_warp_still_reads_is_a_race() -> None:
    twice = f"{WRITE_SHARED}bar.sync 0;\n{NEIGHBOUR}\nst.shared.b32 [%r7], %r1;"
    _, reports, _ = run(twice, LANES)
    assert [report.partition(";")[0] for report in reports] == ["RACE: a warp writes what another touched"]


def test_lanes_of_one_warp_that_do_not_meet_and_bytes_that_nobody_wrote_are_reported() -> None:
    next_lane = "xor.b32 %r8, %r5, 4;\nld.shared.b32 %r9, [%r8];"
    _, reports, _ = run(WRITE_SHARED + next_lane, LANES)
    assert [report.partition(";")[0] for report in reports] == ["a lane reads what another wrote without a sync"]
    _, reports, _ = run(f"{WRITE_SHARED}bar.warp.sync -1;\n{next_lane}", LANES)
    assert not reports
    _, reports, _ = run("mov.b32 %r2, 512;\nld.shared.b32 %r3, [%r2];", LANES)
    assert [report.partition(";")[0] for report in reports] == ["a byte is read that nobody wrote"]


def test_a_barrier_that_some_never_reach_and_a_loop_without_end_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_module, "MOST_INSTRUCTIONS", 1000)
    with pytest.raises(RuntimeError, match="some threads never reach"):
        run("setp.lt.u32 %p1, %r1, 10;\n@%p1 bar.sync 0;", LANES)
    with pytest.raises(RuntimeError, match="runs over"):
        run("$again:\nbra.uni $again;", LANES)


def test_an_instruction_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match="mma.sync.aligned is not emulated; line 7: mma"):
        run("mma.sync.aligned %r2, %r3;", LANES)


def test_registers_that_nobody_wrote_are_reported() -> None:
    _, reports, _ = run("add.s32 %r2, %r77, 1;", LANES)
    assert list(reports) == ["register %r77 is read that nobody wrote"]


def test_floats_round_as_a_device_does() -> None:
    a = np.float32([1 + 2**-8, 1 + 3 * 2**-8, np.nan, 1e-40, 3.0e38, -2.5])
    b = np.float32([1.0, 2.0, 1.0, 1.0, 10.0, 4.0])
    assert np.array_equal(floats("cvt.rn.bf16.f32 %rs1, %r2;\ncvt.f32.bf16 %r9, %rs1;", a)[:2], np.float32([1.0, 1 + 2**-6]))
    assert floats("add.f32 %r9, %r2, %r3;", a, b)[4] == np.float32(3.0e38)
    assert np.isinf(floats("mul.f32 %r9, %r2, %r3;", a, b)[4])
    assert floats("mul.ftz.f32 %r9, %r2, %r3;", a, b)[3] == 0 and floats("mul.f32 %r9, %r2, %r3;", a, b)[3] > 0
    assert floats("max.f32 %r9, %r2, %r3;", a, b)[2] == 1 and np.isnan(floats("max.NaN.f32 %r9, %r2, %r3;", a, b)[2])
    one = np.float32([1 + 2**-12])
    fused = floats("fma.rn.f32 %r9, %r2, %r2, %r3;", one, np.float32([-1 - 2**-11]))
    assert fused == 2**-24  # lost where the product is rounded first
    whole = floats("cvt.rzi.s32.f32 %r8, %r2;\ncvt.rn.f32.s32 %r9, %r8;", np.float32([2.7, -2.7, np.nan]))
    assert np.array_equal(whole, [2, -2, 0])


@pytest.mark.parametrize("code, function", [
    ("prmt.b32 %r9, %r2, %r3, 0x5410;", lambda a, b: (b & 0xFFFF) << 16 | a & 0xFFFF),
    ("shf.l.wrap.b32 %r9, %r2, %r3, 8;", lambda a, b: (b << 8 | a >> 24) & 0xFFFFFFFF),
    ("mul.hi.u32 %r9, %r2, %r3;", lambda a, b: a * b >> 32),
    ("lop3.b32 %r9, %r2, %r3, %r2, 0x3c;", lambda a, b: a ^ b),
    ("bfe.u32 %r9, %r2, 4, 9;", lambda a, b: a >> 4 & 511),
    ("brev.b32 %r9, %r2;", lambda a, b: int(format(a, "032b")[::-1], 2)),
    ("popc.b32 %r9, %r2;", lambda a, b: a.bit_count()),
    ("shl.b32 %r9, %r2, 40;", lambda a, b: 0),
    ("shr.s32 %r9, %r2, 40;", lambda a, b: 0xFFFFFFFF if a >> 31 else 0),
    ("min.s32 %r9, %r2, %r3;", lambda a, b: min(a, b, key=lambda x: x - (x >> 31 << 32))),
    ("setp.lt.s32 %p1, %r2, %r3;\nselp.b32 %r9, %r2, %r3, %p1;", lambda a, b: min(a, b, key=lambda x: x - (x >> 31 << 32))),
])
def test_integers_are_as_python_has_them(code: str, function: Callable[[int, int], int]) -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 2**32, 64, dtype=np.uint32) for _ in range(2))
    loads = "ld.global.b32 %r2, [%rd2];\nld.global.b32 %r3, [%rd2+256];\n"
    words, _, _ = run(f"{loads}{code}\nst.global.b32 [%rd2+512], %r9;", np.concatenate([a, b, a]))
    assert words[128:].tolist() == [function(int(x), int(y)) for x, y in zip(a, b, strict=True)]


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one \.entry"):
        parse(".version 8.0")


@pytest.mark.parametrize("kind, depth", [("bf16", 16), ("f16", 16), ("tf32", 8)])
def test_tensor_cores_multiply_what_the_lanes_hold(kind: str, depth: int) -> None:
    """A lane holds rows lane / 4 and 8 below, columns from lane % 4 on: whole numbers, so that every product is exact."""
    draw = np.random.default_rng(0)
    a, b, c = draw.integers(-8, 9, (16, depth)), draw.integers(-8, 9, (depth, 8)), draw.integers(-99, 99, (16, 8))
    pack = 1 if kind == "tf32" else 2

    def word(values: list[int]) -> int:
        numbers = np.array(values, np.float16 if kind == "f16" else np.float32)
        bits = numbers.view(np.uint16 if kind == "f16" else np.uint32) >> (16 if kind == "bf16" else 0)
        return int(bits[0] if pack == 1 else int(bits[1]) << 16 | int(bits[0]))

    words = np.zeros((11, 32), np.uint32)
    for lane in range(32):
        row, place = lane // 4, lane % 4
        for number in range(4):
            at = place * pack + 4 * pack * (number // 2)
            words[number, lane] = word([a[row + 8 * (number % 2), at + n] for n in range(pack)])
            words[6 + number, lane] = np.float32(c[row + 8 * (number // 2), 2 * place + number % 2]).view(np.uint32)
        for number in range(2):
            words[4 + number, lane] = word([b[place * pack + 4 * pack * number + n, row] for n in range(pack)])
    loads = "".join(f"ld.global.b32 %r{10 + n}, [%rd2+{128 * n}];\n" for n in range(10))
    shape = f"m16n8k{depth}.row.col.f32.{kind}.{kind}.f32"
    product = f"mma.sync.aligned.{shape} {{%r20, %r21, %r22, %r23}}, {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, "
    for number in range(4):
        code = f"{loads}{product}{{%r16, %r17, %r18, %r19}};\nst.global.b32 [%rd2+1280], %r{20 + number};"
        found = run(code, words.reshape(-1), threads=32)[0].reshape(11, 32)[10].view(np.float32)
        expected = [(a @ b + c)[lane // 4 + 8 * (number // 2), 2 * (lane % 4) + number % 2] for lane in range(32)]
        assert found.tolist() == expected


def test_tf32_keeps_ten_bits_and_ties_go_away_from_zero() -> None:
    found = floats("cvt.rna.tf32.f32 %r9, %r2;", np.float32([1 + 2**-11, 1 + 2**-12, -1 - 3 * 2**-11, np.inf]))
    assert found.tolist() == [1 + 2**-10, 1, -1 - 2**-9, np.inf]
