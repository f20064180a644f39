"""The operations at the size of the goals (bench/kernel_cases.py): what all their kernels issue, and memory's floor.

B samples, N packed rows, K positions, G greyed slots; a text has 16 to T tokens, 40 on average.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.compiled.issued import FEATURES, HIDDEN, PATCH, SIDE, TOKENS
from kaleido_fast.bench.kernel_cases import NUM_GREYED, WORDS, Scale
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.row_sums_triton import CHUNK

ARCHITECTURE = 90
B, K, M = Scale().samples, num_positions(), Scale().rows
TEXT, PATCHES = B * (16 + TOKENS) // 2, B * K  # rows
N = TEXT + PATCHES
# How many of a kernel's units a launch of that size has. A text's program goes through all T places, also those of no token.
UNITS = {
    "plan": B, "cut": B, "softmax_kl": M, "text": B * TOKENS, "text_backward": B * TOKENS, "patch": PATCHES,
    "patch_backward": PATCHES, "runs": B * TOKENS + PATCHES, "join": (B * TOKENS + PATCHES) // CHUNK,
}
BF16, FP32 = 2, 4  # bytes of a value
CUT = B * (3 * SIDE * SIDE), B * (K + NUM_GREYED) * 3 * PATCH * PATCH  # bytes read, values written
PLAN_BYTES = B * (12 * TOKENS + 45 + 4 * (TOKENS + K + 34))  # tokens, alignment, numbers of a sample; its plan


def embed_floor(tables: int, rows: int) -> int:
    """Bytes of `embed`: a row read for each that is written, in the rows' dtype; the places' own once."""
    return HIDDEN * (TEXT * tables + PATCHES * rows + N * rows + (TOKENS + K) * tables)


def embed_backward_floor(tables: int) -> int:
    """Bytes of its gradient: what came in, the rows again, the gradients of words and rows."""
    return HIDDEN * (N * BF16 + (TEXT + WORDS) * tables + 2 * PATCHES * BF16)


SIZES: dict[str, tuple[str, int, float | None]] = {  # size, floor in bytes, goal as a share of a copy
    "plan": (f"B={B} T={TOKENS}", PLAN_BYTES, None),
    "cut bf16": (f"B={B} S={SIDE} P={PATCH}", CUT[0] + CUT[1] * BF16, 0.70),
    "cut fp32": (f"B={B} S={SIDE} P={PATCH}", CUT[0] + CUT[1] * FP32, None),
    "embed bf16": (f"B={B} N={N} H={HIDDEN}", embed_floor(BF16, BF16), 0.85),
    "embed under autocast": (f"B={B} N={N} H={HIDDEN}", embed_floor(FP32, BF16), None),
    "embed fp32 without dropout": (f"B={B} N={N} H={HIDDEN}", embed_floor(FP32, FP32), None),
    "embed_backward bf16": (f"B={B} N={N} H={HIDDEN}", embed_backward_floor(BF16), None),
    "embed_backward under autocast": (f"B={B} N={N} H={HIDDEN}", embed_backward_floor(FP32), None),
    "softmax_kl bf16": (f"M={M} F={FEATURES}", 3 * M * FEATURES * BF16, 0.85),
    "softmax_kl bf16 and fp32": (f"M={M} F={FEATURES}", M * FEATURES * (2 * BF16 + FP32), None),
}


def operations(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row of issued.json for each operation, on sm_90."""
    issued = dict.fromkeys(SIZES, 0.0)
    for row in rows:
        if row["sm"] == ARCHITECTURE:
            issued[row["case"]] += row["warp_instructions"] * UNITS[row["kernel"]]
    return [{"operation": name, "size": size, "warp_instructions": round(issued[name]), "floor_bytes": floor,
             "goal_share": goal}
            for name, (size, floor, goal) in SIZES.items()]
