"""The kernels as the engine launches them, a row each: what tests audit and benchmarks/audit_kernels.py reports.

Widths are in bits. A row that no longer fits is a finding: mend the kernel, or say here why the code changed.
"""

from benchmarks.compiled.audit import Build
from benchmarks.compiled.builds_attend import ATTEND
from benchmarks.compiled.builds_embed import EMBED
from benchmarks.compiled.builds_softmax_kl import SOFTMAX_KL
from kaleido_fast.kernels import cut_triton, plan_triton
from kaleido_fast.kernels.cut_tiles import THREADS, levels_of
from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings

RULES = plan_rules(KaleidoSettings(), mask_id=103, ordinary_first=999, ordinary_last=30521)


def _plan(name: str, width: int, tokens_at_once: int, max_registers: int) -> Build:
    """Rows of tokens by as many as a thread holds side by side; all else a number at a time: it computes, it moves little."""
    pointers = [name for name in plan_triton.plan_kernel.arg_names if name.endswith("_ptr")]
    wide = ("alignment_ptr", "keys_ptr", "products_ptr", "seed_ptr", "epochs_ptr")
    signature = {pointer: "*i64" if pointer in wide else "*i32" for pointer in pointers} | {"present_ptr": "*u8"}
    scalars = dict.fromkeys(("num_tokens", "mask_id", "ordinary_first", "num_ordinary"), "i32")
    return Build(
        name=name, kernel=plan_triton.plan_kernel, signature=signature | scalars,
        constants=plan_triton.launch_constants(width, RULES), divisible=[*pointers, "num_tokens"],
        loads=frozenset({8, 32, 64, 32 * tokens_at_once}), stores=frozenset({32, 32 * tokens_at_once}),
        max_registers=max_registers,
        num_warps=plan_triton.NUM_WARPS,
    )


def _cut(name: str, side: int, patch_size: int, dtype: str) -> Build:
    """Pixels by 4 and 8 bytes, weights by 1 and 4 numbers; a thread's 8 values by 16 bytes."""
    levels = levels_of(side, GRIDS, patch_size, RULES.tasks)
    pointers = {"images_ptr": "*u8", "labels_ptr": "*i32", "slots_ptr": "*i32", "weights_ptr": "*fp32",
                "places_ptr": "*i32", "out_ptr": f"*{dtype}"}
    strides = dict.fromkeys(("sample_stride", "label_stride", "slot_stride"), "i32")
    return Build(
        name=name, kernel=cut_triton.cut_kernel, signature=pointers | strides,
        constants=cut_triton.launch_constants(3 * side, patch_size, RULES.num_rows, levels),
        divisible=[*pointers, "sample_stride"], loads=frozenset({32, 64, 128}), stores=frozenset({128}),
        max_registers=cut_triton.MOST_REGISTERS, num_warps=THREADS // 32, maxnreg=cut_triton.MOST_REGISTERS,
    )


BUILDS: tuple[Build, ...] = (
    _cut("cut S=240 P=48 bf16", 240, 48, "bf16"),
    # A program is a warp and 1,024 samples are eight warps an SM: registers are bounded by a thread's 255 alone.
    _plan("plan T=64", 64, tokens_at_once=2, max_registers=104),
    _plan("plan T=512", 512, tokens_at_once=4, max_registers=208),
    *SOFTMAX_KL,
    *EMBED,
    *ATTEND,
)
