"""`python -m kaleido_fast …` with a fault on one worker: FAULT RANK and then the command line."""

import os
import sys

from kaleido_fast.cli import main


def lacks_shards(arguments: list[str]) -> list[str]:
    return [*arguments, "data.shards=/nowhere"]


def cannot_read(arguments: list[str]) -> list[str]:
    """Reading fails at the third batch, as a disk that goes away."""
    from kaleido_fast.data.batches.loader import Loader

    whole, count = Loader.__next__, iter(range(100))

    def broken(loader: Loader) -> object:
        if next(count) == 2:
            raise OSError(5, "Input/output error", "train-000000.tar")
        return whole(loader)

    Loader.__next__ = broken
    return arguments


def is_not_finite(arguments: list[str]) -> list[str]:
    """From the third step on this worker's losses are not a number."""
    from kaleido_fast.training.keyed_step import KeyedStep

    forward = KeyedStep.forward

    def spoilt(*inputs: object) -> object:
        result = forward(*inputs)
        return result._replace(loss=result.loss * float("nan")) if inputs[4] >= 2 else result

    KeyedStep.forward = spoilt
    return arguments


if __name__ == "__main__":
    fault, rank, *command = sys.argv[1:]
    if os.environ.get("RANK") == rank:
        command = globals()[fault](command)
    sys.exit(main(command))
