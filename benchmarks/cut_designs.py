"""Compare designs of `cut` without a GPU: machine code for sm_90, counted as executed, against an H100's rates.

    python -m benchmarks.cut_designs

Writes results/cut_designs.json and cut_designs.md. For S 240, P 48, grids 1..5, bf16, two greys a sample, where all
designs have code; A and B are built without greys and turns, which is in their favour.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from triton.runtime.jit import JITFunction

from benchmarks.compiled.audit import Audit, Build, audit, compile_ahead, machine_code
from benchmarks.compiled.builds import RULES
from benchmarks.designs import cut_direct_triton, cut_products_triton
from kaleido_fast.kernels import cut_triton
from kaleido_fast.kernels.cut_filter import num_taps
from kaleido_fast.kernels.cut_tiles import THREADS, VALUES, Level, levels_of
from kaleido_fast.kernels.geometry import GRIDS

FOLDER = Path(__file__).parent
S, P, BATCH, SM = 240, 48, 1024, 90
# H100 SXM: processors, clock, warp instructions a cycle, measured bytes and tensor operations a second.
PROCESSORS, HERTZ, ISSUED, BYTES_PER_S, TENSOR_PER_S = 132, 1.755e9, 4, 3.0e12, 790e12
MOVED = BATCH * (3 * S * S + RULES.num_rows * 3 * P * P * 2)
POINTERS = {"images_ptr": "*u8", "shift_ptr": "*fp32", "out_ptr": "*bf16"}


def main() -> None:
    rows = [_direct(), _products(), _chosen()]
    floor = MOVED / BYTES_PER_S * 1e3
    result = {"S": S, "P": P, "batch": BATCH, "sm": SM, "floor_ms": round(floor, 3), "designs": rows}
    (FOLDER / "results" / "cut_designs.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = "\n".join(_table_row(row) for row in rows)
    text = (FOLDER / "designs" / "cut_designs.md.in").read_text(encoding="utf-8")
    (FOLDER / "cut_designs.md").write_text(text.format(floor=f"{floor:.2f}", table=table), encoding="utf-8")
    print(table)


def _chosen() -> dict[str, object]:
    """The kernel as launched for its registers; a build of each level alone for what that level executes."""
    levels = levels_of(S, GRIDS, P, RULES.tasks)
    whole = audit(_chosen_build(levels), SM)
    executed = 0.0
    for level in levels:
        alone = replace(level, first_item=0)
        code = _instructions(_chosen_build((alone,)))
        executed += level.items * _executed(code, _trips(level))
    return _row("C: two sparse passes (the kernel)", whole, executed * THREADS // 32, tensor=0)


def _chosen_build(levels: tuple[Level, ...]) -> Build:
    pointers = {"images_ptr": "*u8", "labels_ptr": "*i32", "slots_ptr": "*i32", "weights_ptr": "*fp32",
                "places_ptr": "*i32", "out_ptr": "*bf16"}
    strides = dict.fromkeys(("sample_stride", "label_stride", "slot_stride"), "i32")
    return _build("C", cut_triton.cut_kernel, pointers | strides,
                  cut_triton.launch_constants(3 * S, P, RULES.num_rows, levels), (*pointers, "sample_stride"),
                  cut_triton.MOST_REGISTERS)


def _trips(level: Level) -> list[float]:
    """Of the loops in the order of their ends in the code: taps down, taps along, tiles."""
    if level.copied:
        return []
    inner: list[float] = [level.taps // level.unroll] if level.taps > level.unroll else []
    inner += [level.across // level.chunk] if level.across > level.chunk else []
    tiles = level.cells * level.tiles / level.parts  # of a program, on average
    return [*inner, tiles]


def _direct() -> dict[str, object]:
    executed, audits = 0.0, []
    for grid in GRIDS:
        taps = num_taps(S // grid, P)
        pointers = POINTERS | {"top_ptr": "*i32", "left_ptr": "*i32", "down_ptr": "*fp32", "along_ptr": "*fp32"}
        build = _build("A", cut_direct_triton.direct_kernel, pointers,
                       {"S": S, "P": P, "GRID": grid, "TAPS": taps, "VALUES": VALUES}, pointers)
        programs = grid * grid * -(-3 * P * P // VALUES)
        executed += programs * _executed(_instructions(build), [taps])
        audits.append(audit(build, SM))
    worst = max(audits, key=lambda found: found.registers)
    return _row("A: taps in two dimensions", worst, executed * THREADS // 32, tensor=0)


def _products() -> dict[str, object]:
    rows, columns, deep, wide, warps = 64, 256, 16, 64, 8
    executed, tensor, audits = 0.0, 0, []
    for grid in GRIDS:
        side = S // grid
        pointers = POINTERS | {"down_ptr": "*fp16", "along_ptr": "*fp16"}
        constants = {"S": S, "P": P, "GRID": grid, "ROWS": rows, "COLUMNS": columns, "DEEP": deep, "WIDE": wide}
        build = _build("B", cut_products_triton.products_kernel, pointers, constants, pointers, warps=warps)
        chunks, depths = -(-3 * side // wide), -(-side // deep)
        executed += grid * grid * _executed(_instructions(build), [depths, chunks]) * warps
        tensor += grid * grid * chunks * 2 * rows * wide * (2 * depths * deep + 3 * columns)
        audits.append(audit(build, SM))
    worst = max(audits, key=lambda found: found.spills)
    return _row("B: two matrix products", worst, executed, tensor)


def _build(name: str, kernel: JITFunction, signature: Mapping[str, str], constants: Mapping[str, object],
           divisible: Iterable[str], maxnreg: int | None = None, warps: int = THREADS // 32) -> Build:
    return Build(name=name, kernel=kernel, signature=signature, constants=constants, divisible=tuple(divisible),
                 loads=frozenset(), stores=frozenset(), max_registers=255, num_warps=warps, maxnreg=maxnreg)


def _row(name: str, found: Audit, warp_instructions: float, tensor: int) -> dict[str, object]:
    issue = BATCH * warp_instructions / (PROCESSORS * HERTZ * ISSUED) * 1e3
    return {
        "design": name, "registers": found.registers, "spills": found.spills, "shared_bytes": found.shared_bytes,
        "loads": dict(found.loads), "stores": dict(found.stores),
        "warp_instructions_a_sample": round(warp_instructions), "tensor_mflop_a_sample": round(tensor / 1e6),
        "issue_ms": round(issue, 2), "tensor_ms": round(BATCH * tensor / TENSOR_PER_S * 1e3, 2),
    }


def _table_row(row: dict[str, object]) -> str:
    keys = ("design", "registers", "spills", "shared_bytes", "warp_instructions_a_sample", "issue_ms",
            "tensor_mflop_a_sample", "tensor_ms")
    return "| " + " | ".join(f"{row[key]:,}" if isinstance(row[key], int) else str(row[key]) for key in keys) + " |"


def _instructions(build: Build) -> list[tuple[str, str | None, str | None]]:
    """Operation, label it stands at, label it jumps to, of every instruction in order."""
    found, label = [], None
    for line in machine_code(compile_ahead(build, SM)).splitlines():
        if mark := re.match(r"(\.L_x_\d+):", line):
            label = mark[1]
        elif operation := re.search(r"/\*[0-9a-f]{4,}\*/\s+\{?\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*);", line):
            target = re.search(r"\.L_x_\d+", operation[2]) if operation[1].startswith("BRA") else None
            found.append((operation[1], label, target and target[0]))
            label = None
    return found


def _executed(code: list[tuple[str, str | None, str | None]], trips: Sequence[float]) -> float:
    """Instructions of a warp: each as often as the loops round it turn; jumps forward are taken not to be."""
    places = {label: place for place, (_, label, _) in enumerate(code) if label}
    loops = [(places[to], end) for end, (_, _, to) in enumerate(code) if to in places and places[to] < end]
    counts = torch.ones(len(code), dtype=torch.float64)
    for (start, end), turns in zip(loops, [*trips, *[1.0] * len(loops)], strict=False):
        counts[start : end + 1] *= turns
    padding = sum(float(count) for (name, _, _), count in zip(code, counts, strict=True) if name == "NOP")
    return float(counts.sum()) - padding


if __name__ == "__main__":
    main()
