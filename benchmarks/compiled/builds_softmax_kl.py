"""softmax_kl's builds: wide where F is a multiple of 8 and rows begin at 16 bytes, else a value at a time."""

from benchmarks.compiled.audit import Build
from kaleido_fast.kernels import softmax_kl_triton


def _build(name: str, features: int, dtypes: tuple[str, str], max_registers: int, align: int = 8) -> Build:
    _, options = softmax_kl_triton.launch(65536, features)
    pointers = {
        "prediction_ptr": f"*{dtypes[0]}", "target_ptr": f"*{dtypes[1]}", "weight_ptr": "*fp32", "loss_ptr": "*fp32",
        "gradient_ptr": f"*{dtypes[0]}",
    }
    narrow = {"bf16": 16, "fp32": 32}
    widths = {128} if align == 8 else {narrow[dtype] for dtype in dtypes}
    return Build(
        name=f"softmax_kl {name}", kernel=softmax_kl_triton._softmax_kl_kernel,
        signature=pointers | dict.fromkeys(("num_rows", "prediction_units", "target_units"), "i32"),
        constants={"ALIGN": align, "FEATURES": features, "ROWS": options["ROWS"], "BLOCK": options["BLOCK"]},
        divisible=tuple(pointers), loads=frozenset({32, *widths}), stores=frozenset({32, *widths}),  # 32: weight, loss
        max_registers=max_registers, num_warps=options["num_warps"],
    )


SOFTMAX_KL = (
    _build("bf16 F=2048", 2048, ("bf16", "bf16"), 80),
    _build("bf16 and fp32 F=2048", 2048, ("bf16", "fp32"), 80),
    _build("bf16 F=8192", 8192, ("bf16", "bf16"), 96),
    _build("bf16 F=1001", 1001, ("bf16", "bf16"), 96, align=1),
)
