"""How workers fail: one of them says why in one line, the others leave without a word, and nobody waits.

A worker that fails alone writes why into the group's store and ends. Its connections close with it, so the others meet a
broken collective at once, look into the store, and the first worker says what it finds there. An error
that all workers meet together (SharedError) needs no store.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch.distributed as dist

from kaleido_fast.options import Option, OptionError, message_parts
from kaleido_fast.training.workers.group import SharedError, Workers
from kaleido_fast.training.workers.launcher import name_worker

FAILED = 2  # exit code of those that say nothing; the command line gives the same to the one that does
LINGER_S, START_S = 0.5, 3.0  # the first to end makes a launcher end the others: leave the speaker time to speak
REASON, SPEAKER = "reason", "speaker"
# What torch's collectives say when another worker is gone; they have no exception class of their own.
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "TCPStore")
LATE = ("Timed out", "timed out", "timeout")


@contextlib.contextmanager
def one_worker_speaks() -> Iterator[None]:
    """Before the workers meet: of a mistake that all of them make (a wrong setting) only the first speaks."""
    try:
        yield
    except ValueError:
        if not name_worker(os.environ) or os.environ["RANK"] == "0":
            raise
        time.sleep(START_S)
        sys.exit(FAILED)


def run_together(workers: Workers, work: Callable[[], int], timeout_s: float, *how: str | Option) -> int:
    """The exit code of `work`, or FAILED where another worker speaks of what went wrong.

    Args:
        how: the work can go on where a worker was lost; stands behind "go on" in the message.
    Raises:
        ValueError, OSError: what the user can mend, on the one worker that speaks.
        Exception: a bug, on every worker that has it.
    """
    if workers.count == 1:
        return work()
    try:
        code = work()
        _part()
        return code
    except SharedError:
        if workers.is_first:
            raise
        time.sleep(LINGER_S)
        return FAILED
    except (ValueError, OSError) as error:
        return _leave(workers, error)
    except Exception as error:
        if is_lost(error):
            return _left_behind(workers, error, timeout_s, *how)
        _say(workers, f"worker {workers.rank}: {type(error).__name__}: {error}".splitlines()[0])
        raise
    finally:
        if workers.device.type == "cpu":  # on a GPU work that waits for a lost worker would hold this up
            _part()


def _part() -> None:
    """Close the connections now: left to the interpreter's end, their threads abort it now and then."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave(workers: Workers, error: Exception) -> int:
    """Fail alone: the first worker speaks for itself, another leaves the word to the first."""
    if workers.is_first:
        _speaks(workers)
        raise error
    _say(workers, f"worker {workers.rank}: ", *message_parts(error))
    return FAILED


def _left_behind(workers: Workers, error: Exception, timeout_s: float, *how: str | Option) -> int:
    """Another worker is gone: say why, unless another does."""
    if not _speaks(workers):
        return FAILED
    raise _why_left(workers, error, timeout_s, *how) from error


def _why_left(workers: Workers, error: Exception, timeout_s: float, *how: str | Option) -> OptionError:
    """What the other worker has said, or a guess."""
    try:
        return _heard(workers) if _store(workers).check([REASON]) else _guess(error, timeout_s, *how)
    except RuntimeError:
        return _guess(error, timeout_s, *how)


def what_failed(workers: Workers, error: Exception, timeout_s: float, *how: str | Option) -> str:
    """The sentence that tells of an error, met here or by another worker; arguments as `run_together` takes them."""
    if workers.count > 1 and is_lost(error):
        return str(_why_left(workers, error, timeout_s, *how))
    if isinstance(error, ValueError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _speaks(workers: Workers) -> bool:
    """Whether this worker is the one to speak: the first, if it can, else one of the others."""
    if not workers.is_first:
        time.sleep(LINGER_S)
    try:
        return _store(workers).add(SPEAKER, 1) == 1
    except RuntimeError:
        return workers.is_first  # the store went with the first worker, and its launcher says how that ended


def _guess(error: Exception, timeout_s: float, *how: str | Option) -> OptionError:
    if any(word in str(error) for word in LATE):
        return OptionError(f"another worker gave no answer within run.timeout_s={timeout_s:g} s; see its machine, then go on ",
                           *how)
    return OptionError("another worker was lost (killed, or its machine failed); go on ", *how)


def _say(workers: Workers, *parts: str | Option) -> None:
    """Leave the reason for whoever speaks."""
    try:
        _store(workers).set(REASON, json.dumps([part if isinstance(part, str) else asdict(part) for part in parts]))
    except RuntimeError:
        pass  # nobody is left to read it


def _heard(workers: Workers) -> OptionError:
    """The reason that `_say` left."""
    parts = json.loads(_store(workers).get(REASON))
    return OptionError(*(part if isinstance(part, str) else Option(**part) for part in parts))


def _store(workers: Workers) -> dist.Store:
    assert workers.store is not None, "several workers have one"
    return workers.store


def is_lost(error: Exception) -> bool:
    """Whether a collective failed because another worker is gone or gave no answer."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in LOST + LATE)
