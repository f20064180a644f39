"""A run that is asked to stop (SIGTERM, Ctrl-C) ends its step, saves and leaves."""

import signal
import time
from types import FrameType

SAME_S = 3.0  # launchers pass on a signal that the terminal or the scheduler has sent to the workers too


class StopRequest:
    """Turns the first SIGTERM or SIGINT into a flag; another acts as usual, once it cannot be the same one passed on."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at = 0.0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._at = number, time.monotonic()
        elif time.monotonic() - self._at > SAME_S:
            self.release()
            signal.raise_signal(number)

    def act(self) -> None:
        """Let a signal that was noted act as usual: there is nothing to save yet."""
        if self.signal is not None:
            self.release()
            signal.raise_signal(self.signal)

    def release(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
