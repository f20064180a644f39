"""Breaks a kernel on purpose: a test that lets a broken kernel pass tests nothing."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tests.kernels.interpreter import PACKAGE, interpreted, load_twin

Check = Callable[[ModuleType], None]  # gets the twin, raises where it computes what it should not


@dataclass(frozen=True)
class Break:
    """One fault: `old`, which must stand once in the file, becomes `new`."""

    name: str
    old: str
    new: str
    file: str = ""  # where it stands, if not in the kernel's own file: a helper's, such as "philox_triton"


def assert_caught(
    kernel: str, breaks: Iterable[Break], check: Check, folder: Path, package: str = PACKAGE, limit_s: float = 120.0
) -> None:
    """`check` must pass on the twin of `kernel` and fail on each broken one.

    A broken kernel may reach outside its buffers: let the check run it under `Guards`, so that this is an error and
    not the end of the process.

    Args:
        folder: where broken files go; they must stay while the twins are in use.
        limit_s: a check that takes longer has found a loop that never ends.
    Raises:
        AssertionError: the kernel fails unbroken, or breaks pass; it names them.
        ValueError: a break does not fit its file.
    """
    check(interpreted(kernel, package))
    survivors = [
        fault.name for fault in breaks if _passes(check, broken_twin(kernel, fault, folder, package), limit_s)
    ]
    assert not survivors, f"mutations: {kernel} broken by {survivors} passes its checks"


def broken_twin(kernel: str, fault: Break, folder: Path, package: str = PACKAGE) -> ModuleType:
    """The interpreted twin of `kernel` with one fault in it."""
    file = fault.file or kernel
    text = Path(import_module(f"{package}.{file}").__file__).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(
            f"mutations: {fault.name}: {fault.old!r} stands {text.count(fault.old)} times in {file}, must stand once"
        )
    path = folder / f"{file}__{fault.name.replace(' ', '_')}.py"
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return load_twin(kernel, {file: path}, package)


def _passes(check: Check, twin: ModuleType, limit_s: float) -> bool:
    try:
        with _time_limit(limit_s):
            check(twin)
    except Exception:  # whatever shows it: a wrong value, an address out of bounds, a shape that no longer fits
        return False
    return True


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"mutations: still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
