"""Compare finished runs with guided masking and with random masking on the test split; writes one JSON file.

    python -m benchmarks.masking_study --arm random runs/r0 runs/r1 runs/r2 --arm guided runs/g0 runs/g1 runs/g2 \
        --alignment aag-generated --out benchmarks/results/masking.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kaleido_fast.bench.masking_comparison import masking_study
from kaleido_fast.bench.masking_runs import ARMS, FinishedRun, read_finished_run
from kaleido_fast.config import load_run_config
from kaleido_fast.files import replace_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 where the runs cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arm", nargs="+", action="append", required=True, metavar=("ARM RUN", "RUN"),
                        help=f"{' or '.join(ARMS)}, then the folders of its runs, one a seed; give both arms")
    parser.add_argument("--alignment", required=True, help="data.alignment of the guided runs")
    parser.add_argument("--shards", default="", help="where the runs' shards lie now")
    parser.add_argument("--samples", type=int, default=0, help="of the test split; 0 (the default): all")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    arms: dict[str, list[FinishedRun]] = {}
    try:
        for arm, *runs in options.arm:
            arms.setdefault(arm, []).extend(read_finished_run(Path(run), load_run_config(Path(run))) for run in runs)
        found = masking_study(arms, options.alignment, options.shards, options.samples)
        replace_text(options.out, json.dumps(found, indent=1) + "\n")
    except ValueError as error:
        print(f"masking_study: {error}", file=sys.stderr)
        return 2
    amlm = found["difference"]["random/amlm_loss"]
    print(f"{options.out}: seeds {found['about']['seeds']}, {found['about']['samples']:,} samples; AMLM loss under random "
          f"masking, guided less random: {amlm['mean']:+.4f}, {amlm['verdict']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
