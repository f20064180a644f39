"""embed's builds, forward and backward: 16 bytes for whatever is a row, 4 or 8 for what names one."""

from triton.runtime.jit import JITFunction

from benchmarks.compiled.audit import Build
from kaleido_fast.kernels import embed_backward_triton, embed_triton, row_sums_triton
from kaleido_fast.kernels.geometry import level_offsets

INT32 = ("tokens_ptr", "lengths_ptr", "cumulative_ptr", "source_ptr", "keys_ptr")
INT64 = ("key_ptr", "ends_ptr")
ROWS, WORDS = frozenset({128}), frozenset({32, 64})


def _build(name: str, kernel: JITFunction, rows: str, max_registers: int, **other: str) -> Build:
    """`rows`: dtype of rows and tables; `other`: of single parameters."""
    constants = embed_triton.tiles(768) | {
        "THRESHOLD": round(0.1 * 2**32), "OFFSETS": level_offsets(), "CHUNK": row_sums_triton.CHUNK, "PIECES": 8,
    }
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    dtypes = {
        parameter: "*i32" if parameter in INT32 else "*i64" if parameter in INT64
        else f"*{rows}" if parameter.endswith("_ptr")
        else "fp32" if parameter == "scale" else "i32"
        for parameter in kernel.arg_names if parameter not in constants
    } | other
    return Build(
        name=name, kernel=kernel, signature=dtypes, constants=constants,
        divisible=[parameter for parameter in dtypes if parameter.endswith("_ptr")], loads=ROWS | WORDS, stores=ROWS,
        max_registers=max_registers,
    )


def _sums(name: str, values: str, table: str) -> tuple[Build, Build]:
    pieces, sums = {"pieces_ptr": "*fp32"}, {"sums_ptr": f"*{table}"}
    return (
        _build(f"row sums {name}", row_sums_triton._runs_kernel, values, 48, **pieces, **sums, rows_ptr="*i64"),
        _build(f"row sums joined {name}", row_sums_triton._join_kernel, values, 48, **pieces, **sums),
    )


SUMS = {"sums_ptr": "*fp32"}
PACKED, DPACKED = {"packed_ptr": "*bf16"}, {"dpacked_ptr": "*bf16"}  # under autocast, where the tables are fp32
EMBED = (
    _build("embed text bf16", embed_triton._text_kernel, "bf16", 72),
    _build("embed patches bf16", embed_triton._patch_kernel, "bf16", 72),
    _build("embed text fp32", embed_triton._text_kernel, "fp32", 80),
    _build("embed text autocast", embed_triton._text_kernel, "fp32", 80, **PACKED),
    _build("embed patches autocast", embed_triton._patch_kernel, "fp32", 72, rows_ptr="*bf16", **PACKED),
    _build("embed backward text bf16", embed_backward_triton._text_backward_kernel, "bf16", 128, **SUMS),
    _build("embed backward patches bf16", embed_backward_triton._patch_backward_kernel, "bf16", 128, **SUMS),
    _build("embed backward text fp32", embed_backward_triton._text_backward_kernel, "fp32", 128, **SUMS),
    _build("embed backward text autocast", embed_backward_triton._text_backward_kernel, "fp32", 128, **SUMS, **DPACKED),
    _build("embed backward patches autocast", embed_backward_triton._patch_backward_kernel, "fp32", 128,
           rows_ptr="*bf16", **SUMS, **DPACKED),
    *_sums("bf16", "bf16", "bf16"),
    *_sums("autocast", "fp32", "bf16"),
)
