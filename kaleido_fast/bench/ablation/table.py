"""The table of an ablation: mean and spread of each row, its difference to the first row of its group; Markdown and HTML."""

import html
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kaleido_fast.bench.ablation.rows import Row
from kaleido_fast.bench.masking_comparison import STUDENT, paired_difference, spread_of
from kaleido_fast.options import Option, OptionError

COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
WIDTH, HEIGHT = 420, 220  # of a figure, in pixels


def ablation_figures(
    rows: Sequence[Row], results: Mapping[str, Mapping[int, dict[str, Any]]], missing: Mapping[str, str], seeds: Sequence[int]
) -> dict[str, Any]:
    """What ablations.json holds.

    Args:
        results: by row's name and seed what `run_results` gives.
        missing: by row's name why it has no result, or not all.
    Returns:
        "seeds" and "rows": name, group, title, "missing", "runs" by seed, "spread" (mean, min, max) and "difference" to the
        first row of the group over the seeds that both have (None for the first).
    """
    first: dict[str, str] = {}
    figures = []
    for row in rows:
        ours = results.get(row.name, {})
        base = first.setdefault(row.group, row.name)
        theirs = results.get(base, {})
        shared = [seed for seed in seeds if seed in ours and seed in theirs]
        measured = [set(of[seed]["measures"]) for of in (ours, theirs) for seed in shared]
        names = sorted(set.intersection(*measured)) if measured else []
        compared = [[{name: of[seed]["measures"][name] for name in names} for seed in shared] for of in (theirs, ours)]
        figures.append({
            "name": row.name, "group": row.group, "title": row.title, "missing": missing.get(row.name, ""),
            "runs": {str(seed): of for seed, of in ours.items()},
            "spread": spread_of([of["measures"] for of in ours.values()]) if ours else {},
            "compared_with": None if base == row.name else base,
            "difference": paired_difference(*compared) if shared and base != row.name else None,
        })
    return {"seeds": list(seeds), "rows": figures}


def as_markdown(figures: dict[str, Any]) -> str:
    """One table: a row each, mean (least to most) of each measure, and the difference of SumR with its 95 % interval."""
    header, cells = _cells(figures)
    return "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, cells)]) + "\n"


def as_html(figures: dict[str, Any]) -> str:
    """The table, and each task's loss and accuracy in validation over minutes of training; one offline page."""
    header, cells = _cells(figures)
    table = "".join("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
                    for tag, row in [("th", header), *(("td", row) for row in cells)])
    tasks = sorted({task for row in figures["rows"] for run in row["runs"].values() for task in run["curves"]})
    plots = "".join(_plot(figures, task, what, column) for task in tasks for what, column in (("loss", 1), ("accuracy", 2)))
    legend = "".join(f'<span style="color:{COLORS[number % len(COLORS)]}">&#9632; {html.escape(row["title"])}</span> '
                     for number, row in enumerate(figures["rows"]) if row["runs"])
    return ("<!doctype html><meta charset=utf-8><title>Ablations</title><style>body{font:14px sans-serif;margin:2em}"
            "td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}figure{display:inline-block;margin:.5em}"
            "</style>"
            f"<h1>Ablations</h1><table>{table}</table><h2>Validation over minutes of training</h2><p>{legend}</p>{plots}\n")


def _cells(figures: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = sorted({name for row in figures["rows"] for name in row["spread"]})
    # SumR by what ranks best on average, so that a table has one headline
    sums = [name for name in names if name.startswith("sum_r")]
    shown = max(sums, key=lambda name: statistics.fmean(
        row["spread"][name]["mean"] for row in figures["rows"] if name in row["spread"])) if sums else ""
    header = ["group", "row", "runs", *names, *([f"{shown}: difference, 95 % interval"] if shown else [])]
    cells = []
    for row in figures["rows"]:
        spread = [_spread(name, row["spread"].get(name)) for name in names]
        note = row["missing"] or _difference((row["difference"] or {}).get(shown), row["compared_with"])
        cells.append([row["group"], row["title"], str(len(row["runs"])), *spread, *([note] if shown else [row["missing"]])])
    return header if shown else [*header, "missing"], cells


def _spread(name: str, spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return ""
    scale, digits = (1, 1) if name.startswith("sum_r") else (100, 1)
    mean, least, most = (f"{scale * spread[key]:.{digits}f}" for key in ("mean", "min", "max"))
    return f"{mean} ({least} to {most})"


def _difference(difference: Mapping[str, Any] | None, base: str | None) -> str:
    if difference is None:
        return ""
    interval = difference["interval"]
    within = f" ({interval[0]:+.1f} to {interval[1]:+.1f})" if interval else ""
    return f"{difference['mean']:+.1f}{within} against {base}, {difference['verdict']}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _plot(figures: dict[str, Any], task: str, what: str, column: int) -> str:
    """An SVG of all runs' curves of a task; "" where there is none of two points."""
    lines = [(number, [(point[0], point[column]) for point in run["curves"].get(task, []) if point[column] is not None])
             for number, row in enumerate(figures["rows"]) for run in row["runs"].values()]
    points = [point for _, line in lines for point in line]
    if len({x for x, _ in points}) < 2:
        return ""
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    drawn = "".join(
        f'<polyline fill="none" stroke="{COLORS[number % len(COLORS)]}" points="'
        + " ".join(f"{40 + (WIDTH - 50) * (x - left) / (right - left):.1f},"
                   f"{HEIGHT - 20 - (HEIGHT - 30) * (y - low) / ((high - low) or 1):.1f}" for x, y in line) + '"/>'
        for number, line in lines)
    return (f'<figure><figcaption>{html.escape(task)}: {what}, {low:.3g} to {high:.3g} in {right:.3g} minutes</figcaption>'
            f'<svg width="{WIDTH}" height="{HEIGHT}"><rect x="40" y="10" width="{WIDTH - 50}" height="{HEIGHT - 30}" '
            f'fill="none" stroke="#ccc"/>{drawn}</svg></figure>')


def require_seeds(words: Sequence[str]) -> list[int]:
    """Seeds as they were typed; refuses (ValueError) such as cannot be compared."""
    if len(set(words)) != len(words) or not 1 <= len(words) <= len(STUDENT) + 1 or not all(word.isdecimal() for word in words):
        raise OptionError(Option("seeds"), f": found {' '.join(words)}; give one to {len(STUDENT) + 1} different whole numbers")
    return [int(word) for word in words]
