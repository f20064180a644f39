"""The interpreter, accesses, traffic, guards and mutations on toy kernels whose behaviour is known by hand."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import triton.language as tl
from triton.runtime.errors import InterpreterError
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from tests.kernels import interpreter
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted, load_twin
from tests.kernels.mutations import Break, assert_caught
from tests.kernels.sanitizer import sanitized
from tests.kernels.traffic import recorded

HELPER = """
import triton
import triton.language as tl

@triton.jit
def scaled(x, factor):
    return x * factor + tl.max(x, axis=0) * 0
"""
KERNEL = """
import torch
import triton
import triton.language as tl
from toys.helper_triton import scaled

@triton.jit
def scale_kernel(x_ptr, out_ptr, total_ptr, n, shift, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    x = tl.load(x_ptr + place + shift, mask=inside, other=0.0)
    tl.store(out_ptr + place, scaled(x, 2.0), mask=inside)
    tl.atomic_add(total_ptr, tl.sum(x, axis=0))

def scale_triton(x, shift=0, block=16):
    out, total = torch.empty_like(x), torch.zeros(1)
    scale_kernel[(-(-len(x) // block),)](x, out, total, len(x), shift, BLOCK=block)
    return out, total
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The interpreted twin of a package's kernel that calls a helper of another file."""
    folder = tmp_path / "toys"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper_triton.py").write_text(HELPER)
    (folder / "scale_triton.py").write_text(KERNEL)
    monkeypatch.syspath_prepend(tmp_path)
    yield interpreted("scale_triton", "toys")
    interpreted.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "toys"]:
        del sys.modules[name]


def violations(twin: ModuleType, shift: int) -> int:
    with sanitized(twin, "scale_kernel") as found:
        twin.scale_triton(torch.ones(40), shift=shift)
    return len(found)


def check(twin: ModuleType) -> None:
    x = torch.randn(40, generator=torch.Generator().manual_seed(0))
    with Guards() as guards:
        out, total = twin.scale_triton(guards.place(x))
    torch.testing.assert_close(out, 2 * x)
    torch.testing.assert_close(total, x.sum()[None])


def test_twin_runs_and_the_real_file_stays_as_it_was(toys: ModuleType) -> None:
    check(toys)
    real = importlib.import_module("toys.scale_triton")
    assert real is not toys and isinstance(toys.scale_kernel, InterpretedFunction)
    assert isinstance(real.scale_kernel, JITFunction) and isinstance(real.scaled, JITFunction)
    assert importlib.import_module("toys").scale_triton is real
    assert real.scaled is importlib.import_module("toys.helper_triton").scaled
    with pytest.raises(RuntimeError, match="0 active drivers"):
        real.scale_triton(torch.ones(4))
    hash(real.scale_kernel)  # what a build ahead of time does first: Triton's language is whole again


def test_the_compiler_keeps_nothing_of_the_interpreters(toys: ModuleType) -> None:
    """A kernel imports the compiler while it runs, and the compiler keeps what `min` and `max` are then."""
    check(toys)
    builtin = importlib.import_module("triton.compiler.code_generator").CodeGenerator.builtin_namespace
    assert (builtin["min"], builtin["max"]) == (tl.core.builtin_min, tl.core.builtin_max)


def test_only_triton_files_have_twins() -> None:
    with pytest.raises(ValueError, match=r"interpreter: plan must be a \*_triton file; only those register nothing"):
        load_twin("plan", {})


PHILOX = """
import triton
import triton.language as tl

@triton.jit
def words_kernel(out_ptr, seed, SIDE: tl.constexpr):
    row, column = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
    w0, w1, w2, w3 = tl.philox(seed, row * 123456789, column, row + column, tl.program_id(0))
    s0, s1, s2, s3 = tl.philox(seed, tl.program_id(0), tl.program_id(0), 7, 8)
    place = tl.program_id(0) * SIDE * SIDE + row * SIDE + column
    tl.store(out_ptr + place, (w0 ^ (w1 << 1) ^ (w2 << 2) ^ (w3 << 3) ^ s0 ^ s1 ^ s2 ^ s3).to(tl.int64))
"""


@pytest.mark.parametrize("seed", [0, -3, 2**63 - 1])
def test_philox_in_numpy_is_tritons_own(toys: ModuleType, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    (Path(toys.__file__).parent / "words_triton.py").write_text(PHILOX)
    twin, words = load_twin("words_triton", {}, "toys"), []
    for helper in (interpreter.interpreted_helper, lambda helper: interpreter.interpret_helper(helper.fn)):
        monkeypatch.setattr(interpreter, "interpreted_helper", helper)
        words.append(torch.zeros(2, 8, 8, dtype=torch.int64))
        twin.words_kernel[(2,)](words[-1], seed, SIDE=8)
    assert torch.equal(*words) and len(words[0].unique()) == words[0].numel()


def test_traffic_known_by_hand(toys: ModuleType) -> None:
    """40 fp32 values from a 32-byte boundary: 5 sectors. One value on, each program reads a sector more."""
    x = torch.zeros(64)[:40]
    with recorded() as aligned:
        toys.scale_triton(x)  # programs of 16, 16 and 8 values: 2 + 2 + 1 sectors
    assert aligned.reads["x_ptr"] == aligned.writes["out_ptr"] == 5 * 32
    assert aligned.reads["total_ptr"] == aligned.writes["total_ptr"] == 3 * 32
    assert aligned.writes["x_ptr"] == aligned.reads["out_ptr"] == 0
    with recorded() as shifted:
        toys.scale_triton(torch.zeros(64)[1:33])  # two programs of 16 values, 3 sectors each
        toys.scale_triton(torch.zeros(64).view(8, 8)[:, 0])  # read as if they stood together: one sector
    assert [launch.reads["x_ptr"] for launch in shifted.launches] == [6 * 32, 1 * 32]
    assert shifted.reads["x_ptr"] == 7 * 32 and shifted.reads["elsewhere"] == 0


@pytest.mark.parametrize(("shift", "place"), [(1, "160 bytes from the start"), (-1, "-4 bytes from the start")])
def test_reads_out_of_bounds_raise(toys: ModuleType, shift: int, place: str) -> None:
    message = f"guards: scale_kernel, program .*: read {place} of x_ptr, which has 160"
    with pytest.raises(InterpreterError, match=message), Guards() as guards:
        toys.scale_triton(guards.place(torch.ones(40)), shift=shift)


def test_sanitizer_finds_a_missing_bound_and_leaves_the_kernel_as_it_was(toys: ModuleType) -> None:
    pytest.importorskip("triton_viz", reason="triton-viz belongs to the test extra, not to a machine with torch alone")
    assert violations(toys, shift=0) == 0 and violations(toys, shift=1) > 0 and violations(toys, shift=0) == 0
    check(toys)
    assert hash(importlib.import_module("toys.scale_triton").scale_kernel)


def test_guards_poison_fresh_tensors_and_gaps() -> None:
    with Guards() as guards:
        fresh = [torch.empty(3), torch.ones(2).new_empty(4, dtype=torch.bfloat16), torch.empty_like(torch.ones(5))]
        numbers = torch.empty(3, dtype=torch.int32)
        placed = guards.place(torch.arange(6.0).view(3, 2).t())
        column = guards.place(torch.arange(6.0).view(3, 2)[:, 0])
        expanded = guards.place(torch.arange(3.0)[:, None].expand(3, 2))
    assert all(tensor.isnan().all() for tensor in fresh) and (numbers == 2**31 - 1).all()
    assert torch.equal(placed, torch.arange(6.0).view(3, 2).t()) and placed.stride() == (1, 2)
    assert torch.equal(column, torch.tensor([0.0, 2.0, 4.0]))
    assert column.as_strided((2,), (2,), column.storage_offset() + 1).isnan().all()
    assert expanded.stride() == (1, 0) and torch.equal(expanded[:, 1], torch.arange(3.0))


@pytest.mark.parametrize(("offset", "side"), [(-1, "before"), (3, "behind")])
def test_guards_see_writes_into_a_zone(offset: int, side: str) -> None:
    with pytest.raises(AssertionError, match=rf"guards: written {side} \(3,\) torch.float32"), Guards() as guards:
        tensor = guards.place(torch.ones(3))
        tensor.as_strided((1,), (1,), tensor.storage_offset() + offset).fill_(0)


def test_mutations_in_a_kernel_and_its_helper(toys: ModuleType, tmp_path: Path) -> None:
    breaks = [
        Break("factor", "scaled(x, 2.0)", "scaled(x, 2.5)"),
        Break("mask", "inside = place < n", "inside = place < n + 1"),
        Break("helper", "x * factor", "x + factor", file="helper_triton"),
    ]
    assert_caught("scale_triton", breaks, check, tmp_path, "toys")
    harmless = Break("harmless", "other=0.0", "other=0")
    with pytest.raises(AssertionError, match=r"mutations: scale_triton broken by \['harmless'\] passes its checks"):
        assert_caught("scale_triton", [*breaks, harmless], check, tmp_path, "toys")
    check(interpreted("scale_triton", "toys"))
    endless = Break("endless", "inside = place < n", "inside = place < n\n    while n > 0:\n        n = n * 1")
    assert_caught("scale_triton", [endless], check, tmp_path, "toys", limit_s=1.0)


def test_a_break_must_fit_its_file(toys: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mutations: gone: 'nowhere' stands 0 times in scale_triton, must stand once"):
        assert_caught("scale_triton", [Break("gone", "nowhere", "")], check, tmp_path, "toys")
