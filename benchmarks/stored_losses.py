"""How far losses with stored features are from those with computed ones, as one line of JSON.

    kaleido-fast encode configs/demo.yaml data.shards=shards/ data.store=stores/u8 data.store_dtype=uint8
    python benchmarks/stored_losses.py configs/demo.yaml data.shards=shards/ data.store=stores/u8 data.store_dtype=uint8

Exit code 1 where the difference is past the dtype's bound, 2 where there is no such store.
"""

import json
import sys
from collections.abc import Sequence

from kaleido_fast.bench.stored_features import stored_losses
from kaleido_fast.config import load_config


def main(arguments: Sequence[str]) -> int:
    """CONFIG.yaml key=value …"""
    try:
        found = stored_losses(load_config(arguments[0], arguments[1:]))
    except ValueError as error:
        print(f"stored_losses: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    bound = found["stored_loss_bound"]
    return int(bound is not None and not found["stored_loss_difference"] <= bound)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
