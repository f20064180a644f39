"""How a run ended, as summary.json has it: `ended` of the run now, `earlier` of the processes that it went on from.

    "ended":   {"how": "failed", "why": "RUN/metrics.jsonl: cannot be written: No space left on device; make room, …"}
    "earlier": [{"how": "killed", "step": 200}]

A process writes `running` from its start on and says how it ended at its end. One that is killed says nothing: where it said
`running`, and nothing holds the folder any more, it was killed. The next one finds that, and so does the report.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kaleido_fast.folder_lock import LOCK, has_ended_here
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.run.folder import RunFolder

RUNNING, FAILED, KILLED = "running", "failed", "killed"
WORDS = {"done": "done", "stopped": "stopped by a signal", KILLED: "killed, or its machine failed"}


@contextlib.contextmanager
def failure_noted(folder: RunFolder, describe: Callable[[Exception], str] | None) -> Iterator[None]:
    """Write into summary.json how the block fails, where it does; what it raises stays. A lost run has said so itself.

    Args:
        describe: the sentence that tells of an error; None on workers that do not write.
    """
    try:
        yield
    except RunLost:
        raise
    except Exception as error:
        if describe is not None:
            with contextlib.suppress(ValueError):  # a full disk, which may be what failed
                folder.change_ended({"how": FAILED, "why": describe(error)})
        raise


def earlier_ends(folder: Path) -> list[dict[str, Any]]:
    """How the processes ended that a run goes on from, the first one first; to be read while the run's folder is held."""
    summary = _read(folder)
    ended, progress = summary.get("ended"), summary.get("progress")
    if not isinstance(ended, dict) or not isinstance(progress, dict):  # of a version that did not say
        return []
    how = KILLED if ended.get("how") == RUNNING else ended.get("how")
    why = {"why": ended["why"]} if "why" in ended else {}
    return [*summary.get("earlier", []), {"how": how, "step": progress.get("step"), **why}]


def describe_end(folder: Path, ended: Mapping[str, Any]) -> str:
    """`ended` of a run in `folder` in words, and whether one that says `running` is."""
    how = ended.get("how", "")
    if how == RUNNING and (folder / LOCK).exists() and not has_ended_here(folder):
        return "not yet: it is running"
    how = KILLED if how == RUNNING else how
    return f"{how}: {ended['why']}" if "why" in ended else WORDS.get(how, how)


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
