"""Which process is which: what tells a living one of this machine from a later one of the same number."""

import os
from pathlib import Path

ENDED = "ZX"  # states of a process that is dead and not yet forgotten by its parent


def process_identity(pid: int) -> str:
    """Boot of the machine, start of the process and namespace of its number, between dots; "" where none lives or the system
    has no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in ENDED else f"{boot()}.{fields[18]}.{namespace()}"


def boot() -> str:
    """This start of the machine; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def namespace() -> str:
    """Where this process's number counts: a container has its own; "" where the system does not say."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def boot_and_namespace(identity: str) -> tuple[str, str]:
    """Both parts of what `process_identity` gave; "" where it gave nothing."""
    first, _, last = identity.split(".") if identity.count(".") == 2 else ("", "", "")
    return first, last
