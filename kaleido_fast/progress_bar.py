"""How far a long work is, on standard error: a bar in a terminal, elsewhere (a log file, a pipe) a line every ten seconds.

    prepare:  16% 1240/8000 [00:10<00:57, 118.00product/s]      done/all [time taken<time left, rate]

A bar repaints itself by carriage returns, which a log keeps: eight thousand products would be a thousand bars there.
"""

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY_S = 10.0  # between two lines where nobody looks


class ProgressBar:
    """Counts what is done; at its end the last state stays there."""

    def __init__(
        self, total: int | None, what: str, unit: str, *, done: int = 0, shown: bool = True, scaled: bool = False,
    ) -> None:
        """Args:
            total: how many there are in all; None where that is not known yet.
            what: the name of the work, at the line's beginning.
            unit: of what is counted, in the singular.
            done: how many were done before.
            shown: false for a process that leaves it to another to say how far all of them are.
            scaled: counts with SI prefixes, for bytes.
        """
        self.n, self.total, self._first = done, total, done
        self._what, self._unit, self._scaled, self._note = what, unit, scaled, ""
        self._started = self._written = time.monotonic()
        self._bar: tqdm | None = None
        self._lines = shown and not sys.stderr.isatty()
        if shown and not self._lines:
            self._bar = tqdm(total=total, initial=done, desc=what, unit=unit, unit_scale=scaled, dynamic_ncols=True)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.n += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._lines and time.monotonic() - self._written >= EVERY_S:
            self._write()

    def expect(self, total: int | None) -> None:
        """There are so many in all, as is known now; None: not yet."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def note(self, **values: str) -> None:
        """What is said behind the count from now on."""
        self._note = ", ".join(f"{name}={value}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix(values)

    def close(self) -> None:
        """Say the last state; nothing after it."""
        if self._bar is not None:
            self._bar.close()
        elif self._lines:
            self._write()
        self._bar, self._lines = None, False

    def _write(self) -> None:
        self._written = time.monotonic()  # of an unknown total tqdm is told 0
        elapsed = self._written - self._started
        print(tqdm.format_meter(self.n, self.total or 0, elapsed, ncols=0, prefix=self._what, unit=self._unit,
                                unit_scale=self._scaled, initial=self._first, postfix=self._note or None),
              file=sys.stderr, flush=True)


def write_line(text: str) -> None:
    """Print a line to standard output, clear of a bar that is shown."""
    tqdm.write(text)
