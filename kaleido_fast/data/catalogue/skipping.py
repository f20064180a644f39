"""What `prepare` leaves out: counted by reason, the first of each named, refused past a limit."""

from dataclasses import dataclass, field

from kaleido_fast.options import Option, OptionError


@dataclass(slots=True)
class Skipped:
    """Rows and photographs left out: counted by reason, the first of each named."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notices: dict[str, tuple[int, str]] = field(default_factory=dict)  # what is left alone and no fault: count, first example

    def add(self, reason: str, what: str, most: int = 20) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < most:
            examples.append(what)

    def notice(self, what: str, example: str) -> None:
        count, first = self.notices.get(what, (0, example))
        self.notices[what] = (count + 1, first)

    def total(self) -> int:
        return sum(self.counts.values())


def check_limit(limit: float) -> None:
    """Refuse (ValueError) a `max_skipped` that is no share."""
    if not 0 <= limit <= 1:
        raise OptionError(Option("max_skipped"), f"={limit} must lie in 0..1, 0.01 for one in a hundred")


def stop_past_limit(skipped: Skipped, total: int, limit: float, what: str = "products or photographs") -> None:
    """Give up (ValueError) where more than this share of all that was met cannot be used."""
    if skipped.total() <= limit * total:
        return
    reasons = "; ".join(f"{count} x {reason} ({skipped.examples[reason][0]})" for reason, count in skipped.counts.items())
    raise OptionError(f"{skipped.total()} of {total} {what} cannot be used, more than the limit of {limit:.1%} (",
                      Option("max_skipped"), f"): {reasons}")
