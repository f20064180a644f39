"""A training that cannot go on, as all of its workers know."""

from typing import Any

from kaleido_fast.training.workers.group import SharedError


class RunLost(SharedError):
    """Raised on all workers alike, in one line that says why and what to do.

    Args:
        details: plain values for summary.json, more than a line can hold.
    """

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}
