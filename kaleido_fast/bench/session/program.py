"""The session's command line: the parts in their order, or, in a process of its own, one of them."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaleido_fast.bench.session.parts import DEFAULT, MORE, make_parts
from kaleido_fast.bench.session.report import Report
from kaleido_fast.bench.session.results import Results, commit_of
from kaleido_fast.bench.session.runner import LEAST_S, Outcome, Part, run_part
from kaleido_fast.bench.session.wheels import fetch_wheels, install_wheels

if TYPE_CHECKING:  # torch, which the parts import
    import torch

    from kaleido_fast.bench.session.work import Sizes

ROOT = Path(__file__).resolve().parents[3]
NO_DEVICE = "gpu_session: no CUDA device found"
SHOWN = 1500  # characters of a failed part's output


def main(
    entry: Path, description: str, load_config: Callable[[], Any], arguments: Sequence[str] | None = None,
    sizes: "Sizes | None" = None, device: "torch.device | None" = None,
) -> int:
    """Run the session, or the part that `--run-part` names.

    Args:
        entry: the program that was started; parts start it again.
        load_config: gives config.load_config, imported when it is asked for.
        sizes, device: other ones than a GPU's, for a rehearsal.
    """
    options = _options(description, arguments)
    if options.wheels:
        return fetch_wheels(options.wheels, options.python)
    if options.run_part:
        return _one_part(options, load_config, sizes, device)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what runs is ended on the way out
    with tempfile.TemporaryDirectory(prefix="site") as site:
        if options.install:
            if refused := install_wheels(options.install, Path(site)):
                print(f"gpu_session: {refused}", flush=True)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (site, os.environ.get("PYTHONPATH"))))
            sys.path.insert(0, site)  # so that what was installed is seen to be there
        return _session(options, entry)


def _session(options: argparse.Namespace, entry: Path) -> int:
    """All parts that were asked for, as far as the time goes."""
    start = time.perf_counter()
    commit = options.commit or commit_of(ROOT)
    further = ["--commit", commit] if commit else []
    further += ["--shards", str(options.shards.resolve())] if options.shards else []
    parts = make_parts(entry, further)
    results = Results(options.out, command="python benchmarks/gpu_session.py", commit=commit, minutes=options.minutes)
    for name in dict.fromkeys(("environment", *options.parts)):
        left = options.minutes * 60 - (time.perf_counter() - start)
        if left < LEAST_S:
            results.put(name, {"status": "skipped", "why": "the session's time was over", "seconds": 0.0})
        elif NO_DEVICE in _run(parts[name], left, results).get("output", ""):
            print(NO_DEVICE, file=sys.stderr)
            return 1
    return int(any(outcome["status"] == "failed" for outcome in results.parts.values()))


def _run(part: Part, left: float, results: Results) -> Outcome:
    """Run a part; on a machine without a GPU nothing is written, for the file may hold another's figures."""
    print(f"{part.name} ...", flush=True)
    first = not results.parts
    outcome = run_part(part, ROOT, left, lambda now: None if first else results.put(part.name, now))
    if NO_DEVICE in outcome.get("output", ""):
        return outcome
    results.put(part.name, outcome)
    notes = [outcome["why"]] if "why" in outcome else [f"{what}: {why}" for what, why in outcome["failed"].items()]
    print(f"{part.name}: {outcome['status']} in {outcome['seconds']:.0f} s", *notes, sep="\n    ", flush=True)
    if outcome["status"] == "failed" and "output" in outcome:
        print(outcome["output"][-SHOWN:], flush=True)
    return outcome


def _one_part(
    options: argparse.Namespace, load_config: Callable[[], Any], sizes: "Sizes | None", device: "torch.device | None"
) -> int:
    from kaleido_fast.bench.session.work import WORK, Job, Sizes

    WORK[options.run_part](Job(
        device or _cuda(), sizes or Sizes(), Report(options.lines), tuple(options.cases), options.commit, options.shards,
        load_config))
    return 0


def _cuda() -> "torch.device":
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(NO_DEVICE)
    return torch.device("cuda")


def _options(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    folder = Path(os.environ.get("OUT") or "benchmarks/results")
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=folder / "gpu.json", help="JSON file to write; in $OUT where that is set")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing runs any more")
    parser.add_argument("--parts", nargs="+", choices=(*DEFAULT, *MORE), default=list(DEFAULT), metavar="PART",
                        help=f"in this order; all but the last {len(MORE)} without it: {', '.join((*DEFAULT, *MORE))}")
    parser.add_argument("--shards", type=Path, help="a real catalogue's, for loader and end-to-end; a drawn one without it")
    parser.add_argument("--commit", help="what the code is, where there is no git to ask")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="fetch or build what a bare machine lacks, and end")
    parser.add_argument("--python", default="3.12", help="the Python that the wheels are for")
    parser.add_argument("--install", type=Path, metavar="DIR", help="wheels to install first, for this session alone")
    parser.add_argument("--run-part", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cases", nargs="+", default=(), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)
