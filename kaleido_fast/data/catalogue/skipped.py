"""What `prepare` leaves out: counted by reason, the first of each named, refused past a limit."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Skipped:
    """Rows and photographs left out: counted by reason, the first of each named."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, what: str, most: int = 20) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < most:
            examples.append(what)

    def total(self) -> int:
        return sum(self.counts.values())
