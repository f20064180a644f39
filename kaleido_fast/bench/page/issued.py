"""Section of bench.md: what compiled kernels issue and move, counted without a GPU, and the time that this takes at least."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kaleido_fast.bench.page.words import MISSING

ISSUED_PER_S = 132 * 4 * 1.755e9  # warp instructions: processors, schedulers, clock of an H100 and of an H200
COPY_BYTES_PER_S = {"H100": 3.0e12, "H200": 4.3e12}
CASES = {"cut": "cut bf16", "embed": "embed bf16", "softmax_kl": "softmax_kl bf16"}  # that `bench kernels` times
Shares = Mapping[str, Mapping[str, float]]
NO_SHARES: Shares = MappingProxyType({})


def largest_shares(path: Path) -> Shares:
    """By operation and card, the share of a copy's bandwidth that its instructions leave it at most; none without the file."""
    rows = _read(path).get("operations", [])
    return {row["operation"]: {card: _share(row, card) for card in COPY_BYTES_PER_S} for row in rows}


def goal_text(operation: str, goal: float | None, card: str, shares: Shares) -> str:
    """A goal, and where issuing forbids it how much there can be; `card` is a device's whole name."""
    if not goal:
        return ""
    of_cards = shares.get(CASES.get(operation, operation), {})
    most = min((share for name, share in of_cards.items() if name in card), default=1.0)
    return f"{goal:.0%}" + (f", out of reach: issuing leaves {most:.0%}" if most < goal else "")


def issued_text(path: Path) -> str:
    """What benchmarks/bench_issued.py counted."""
    counted = _read(path)
    if not counted:
        return f"{MISSING} `python -m benchmarks.bench_issued` counts; it needs no GPU."
    shares = largest_shares(path)
    lines = ["| operation | size | issuing, ms | memory, ms: " + " | memory, ms: ".join(COPY_BYTES_PER_S) + " | bound by | "
             "share of a copy, at most: " + " | ".join(COPY_BYTES_PER_S) + " | goal |", "| --- " * 9 + "|"]
    for row in counted["operations"]:
        memory = [_memory_ms(row, card) for card in COPY_BYTES_PER_S]
        bound = ", ".join(f"{card}: {'issuing' if _issue_ms(row) > ms else 'memory'}"
                          for card, ms in zip(COPY_BYTES_PER_S, memory, strict=True))
        share = " | ".join(f"{shares[row['operation']][card]:.0%}" for card in COPY_BYTES_PER_S)
        times = " | ".join(f"{ms:.3f}" for ms in (_issue_ms(row), *memory))
        lines.append(f"| {row['operation']} | {row['size']} | {times} | {bound} | {share} | {_goals(row, shares)} |")
    kernels = ["| case | kernel | sm | of a | warp instructions | as PTX | bytes asked for | bytes written | barriers |",
               "| --- " * 9 + "|"]
    for row in counted["kernels"]:
        kernels.append(f"| {row['case']} | {row['kernel']} | {row['sm']} | {row['unit']} | {row['warp_instructions']:,.0f} | "
                       f"{row['warp_instructions_of_ptx']:,.0f} | {row['bytes_read']:,.0f} | {row['bytes_written']:,.0f} | "
                       f"{row['barriers']:,.1f} |")
    said = (f"Counted by running the code that Triton {counted['versions']['triton']} compiles, in an emulator "
            "(docs/benchmarks.md). No card can be faster than the larger of two times: of issuing every instruction of the "
            f"operation's kernels, at {ISSUED_PER_S:.3g} warp instructions a second (132 processors, 4 schedulers, 1.755 GHz: "
            "H100 and H200 alike), and of moving the bytes that must be read and written at least, at "
            + " and ".join(f"{rate / 1e12:g} TB/s on an {card}" for card, rate in COPY_BYTES_PER_S.items())
            + ". `as PTX`: before ptxas, whose instructions are taken to run as often as those of PTX from the same line. "
            "`bytes asked for` are sectors of 32 bytes that a warp's loads touch, what caches answer included.")
    return f"{said}\n\n" + "\n".join(lines) + "\n\n" + "\n".join(kernels)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _issue_ms(row: Mapping[str, Any]) -> float:
    return float(row["warp_instructions"] / ISSUED_PER_S * 1e3)


def _memory_ms(row: Mapping[str, Any], card: str) -> float:
    return float(row["floor_bytes"] / COPY_BYTES_PER_S[card] * 1e3)


def _share(row: Mapping[str, Any], card: str) -> float:
    memory = _memory_ms(row, card)
    return memory / max(memory, _issue_ms(row))


def _goals(row: Mapping[str, Any], shares: Shares) -> str:
    goal = row["goal_share"]
    if not goal:
        return ""
    forbidden = [card for card, share in shares[row["operation"]].items() if share < goal]
    return f"{goal:.0%}" + (f": out of reach on {' and '.join(forbidden)}" if forbidden else "")
