"""The comparison as text."""

from kaleido_fast.parity.compare import Comparison
from kaleido_fast.parity.run import ParityReport

HEAD = ("quantity", "size", "difference", "bound")


def parity_table(report: ParityReport) -> str:
    """Title, a line a quantity, the verdict."""
    sixteen = any(row.plain is not None for row in report.rows)
    head = (*HEAD, *(["plain"] if sixteen else []), "")
    lines = [head, *(_line(row, sixteen) for row in report.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    body = ["  ".join(cell.ljust(width) if column in (0, len(head) - 1) else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip() for line in lines]
    return "\n".join([report.title, "", *body, "", verdict(report)])


def verdict(report: ParityReport) -> str:
    """One line: all within their bounds, or which are not."""
    past = [row.quantity for row in report.rows if not row.holds]
    if not past:
        nearest = max(report.rows, key=lambda row: row.used)
        return (f"{len(report.rows)} quantities, all within their bounds; nearest to its own: {nearest.quantity} "
                f"({nearest.used:.0%})")
    return f"{len(past)} of {len(report.rows)} quantities past their bounds: {', '.join(past)}"


def _line(row: Comparison, sixteen: bool) -> tuple[str, ...]:
    numbers = [f"{row.size:.3g}", f"{row.difference:.1e}", f"{row.bound:.1e}"]
    if sixteen:
        numbers.append("" if row.plain is None else f"{row.plain:.1e}")
    remark = " ".join(part for part in ("" if row.holds else "PAST ITS BOUND", row.worst) if part)
    return (row.quantity, *numbers, remark)
