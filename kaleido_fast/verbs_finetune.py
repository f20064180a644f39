"""The verb `finetune`: its arguments, and what it does."""

import argparse
import os


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("finetune", help="train a pre-trained model for a task: task=category init.weights=RUN")
    verb.add_argument("config", metavar="CONFIG.yaml")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="task=NAME, init.weights=FOLDER, any setting")
    verb.add_argument("--resume", choices=["auto"], help="auto: go on with the run in run.out if there is one")
    verb.set_defaults(run=finetune)


def finetune(options: argparse.Namespace) -> int:
    """Fine-tune; the exit code."""
    from kaleido_fast.config import check_config, load_config
    from kaleido_fast.finetune.finetune import finetune, prepare_config
    from kaleido_fast.training.workers.failure import one_worker_speaks

    resume = options.resume == "auto"
    with one_worker_speaks():
        config, changed = prepare_config(load_config(options.config, options.overrides), resume)
        check_config(config)
    if changed and os.environ.get("RANK", "0") == "0":
        print(f"of the model it starts from: {' '.join(changed)}")
    return finetune(config, resume)
