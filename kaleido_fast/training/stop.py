"""A run that is asked to stop (SIGTERM, Ctrl-C) ends its step, saves and leaves."""

import signal
from types import FrameType


class StopRequest:
    """Turns the first SIGTERM or SIGINT into a flag; a second one acts as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.release()

    def release(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
