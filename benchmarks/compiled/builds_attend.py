"""attend's builds, forward and backward: 16 bytes for rows, 4 for what names them; products by tensor cores."""

import torch
from triton.runtime.jit import JITFunction

from benchmarks.compiled.audit import Build
from kaleido_fast.kernels import attend_backward_triton, attend_triton

HIDDEN = 768
POINTERS = {"cumulative_ptr": "*i32", "words_ptr": "*i32", "key_ptr": "*i64", "log_sums_ptr": "*fp32"}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def _build(
    name: str, kernel: JITFunction, tiles: dict[str, int], dtype: str, width: int, max_registers: int, drops: bool
) -> Build:
    """As training has it; where it `drops`, with dropout and the prefix mask, which take most registers."""
    num_warps, num_stages = (tiles.pop(option) for option in ("num_warps", "num_stages"))
    constants = tiles | {"HEADS": HIDDEN // width, "WIDTH": width, "PREFIX": drops, "THRESHOLD": round(0.1 * 2**32) * drops}
    signature = {
        parameter: POINTERS.get(parameter, f"*{dtype}") if parameter.endswith("_ptr")
        else "fp32" if parameter.endswith("_scale") else "i32"
        for parameter in kernel.arg_names if parameter not in constants
    }
    backward, words = "dout_ptr" in signature, {64} if drops else set()
    return Build(
        name=f"{name} {dtype} D={width}{', prefix and dropout' if drops else ''}", kernel=kernel, signature=signature,
        constants=constants, divisible=[parameter for parameter in signature if parameter.endswith("_ptr")],
        loads=frozenset({32, 128, *words}), stores=frozenset({128} if backward else {32, 128}), max_registers=max_registers,
        num_warps=num_warps, num_stages=num_stages, tensor_cores=True,
    )


def _both(dtype: str, width: int, forward: int, backward: int, drops: bool = False) -> tuple[Build, Build]:
    """`forward`, `backward`: registers at most."""
    kind, kernel = DTYPES[dtype], attend_backward_triton._attend_backward_kernel
    return (
        _build("attend", attend_triton._attend_kernel, attend_triton.tiles(kind, width), dtype, width, forward, drops),
        _build("attend backward", kernel, attend_backward_triton.tiles(kind), dtype, width, backward, drops),
    )


ATTEND = (*_both("bf16", 64, 160, 136), *_both("bf16", 64, 240, 176, drops=True))
