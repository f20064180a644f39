"""What each verb of the command line does, given its parsed arguments: a few lines that call the library.

Imports stand inside, so that a verb loads what it needs and nothing else. A return value is the exit code, None is 0.
"""

import argparse
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaleido_fast.config import Config


def generate(options: argparse.Namespace) -> None:
    from kaleido_fast.data.drawn.write import generate_catalogue

    generate_catalogue(options.out, options.products, options.seed, image_size=options.size, progress=True)


def prepare(options: argparse.Namespace) -> None:
    from kaleido_fast.catalogue_flags import KALEIDO_TSV, READERS, catalogue_of, given_flags

    if options.source == KALEIDO_TSV:
        from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv

        given = given_flags(options, KaleidoTsvOptions)
        print(prepare_kaleido_tsv(KaleidoTsvOptions(**given | {"catalog": tuple(given["catalog"])})).describe())
        return
    from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare

    given = given_flags(options, PrepareOptions, READERS[options.source])
    print(prepare(PrepareOptions(catalogue_of(options.source, given), **given)).describe())


def data_check(options: argparse.Namespace) -> int:
    from kaleido_fast.authors.check_shard import FeaturePartCheck
    from kaleido_fast.data.check.folder import check_folder
    from kaleido_fast.progress_bar import write_line

    summary = check_folder(options.shards, write_line, FeaturePartCheck)
    print(summary.describe())
    return 1 if summary.findings else 0


def data_show(options: argparse.Namespace) -> None:
    from kaleido_fast.report.contact_sheet import show_shards

    print(show_shards(options.shards, options.out))


def pretrain(options: argparse.Namespace) -> int:
    from kaleido_fast.config import load_config
    from kaleido_fast.training.pretrain import pretrain
    from kaleido_fast.training.workers.failure import one_worker_speaks

    with one_worker_speaks():
        config = load_config(options.config, options.overrides)
        if config.finetune.task:
            raise ValueError(f"finetune.task={config.finetune.task}: pre-training has no task; run `kaleido-fast finetune`, or "
                             "leave it out")
    return pretrain(config, resume=options.resume == "auto")


def estimate(options: argparse.Namespace) -> None:
    from kaleido_fast.bench.estimate import describe_estimate, estimate
    from kaleido_fast.config import load_config

    print(describe_estimate(estimate(
        load_config(options.config, options.overrides), options.workers, products=options.products,
        photographs=options.photographs, tflops=options.tflops, measure=options.measure)))


def encode(options: argparse.Namespace) -> int:
    from kaleido_fast.config import load_config
    from kaleido_fast.training.stores.encode import encode
    from kaleido_fast.training.workers.failure import one_worker_speaks

    with one_worker_speaks():
        config = load_config(options.config, options.overrides)
    return encode(config)


def align(options: argparse.Namespace) -> int:
    from kaleido_fast.alignment.align import align
    from kaleido_fast.config import load_config
    from kaleido_fast.training.workers.failure import one_worker_speaks

    with one_worker_speaks():
        config = load_config(options.config, options.overrides)
    return align(config)


def align_eval(options: argparse.Namespace) -> None:
    from kaleido_fast.alignment.evaluate import describe_scores, evaluate_alignments
    from kaleido_fast.config import load_align_config

    config = load_align_config(options.run_folder, options.overrides, needs_shards=True)
    print(describe_scores(evaluate_alignments(
        options.run_folder, config, options.truth, options.out, options.samples, options.split)))


def evaluate(options: argparse.Namespace) -> None:
    from kaleido_fast.config import load_run_config
    from kaleido_fast.finetune.table import measures_of
    from kaleido_fast.tasks.evaluate import evaluate_run

    config = load_run_config(options.run_folder, options.overrides, needs_shards=True)
    evaluate_run(options.run_folder, config, measures_of(config.finetune.task), options.per_sample)


def report(options: argparse.Namespace) -> None:
    from kaleido_fast.report.html import write_report

    print(write_report(options.run_folder, index=options.index, queries=options.queries))


def import_tf(options: argparse.Namespace) -> None:
    from kaleido_fast.authors.import_tf import ImportOptions, import_tf

    given = {key: value for key, value in vars(options).items() if key not in ("run", "verb")}
    print(import_tf(ImportOptions(**given)).describe())


def explain(options: argparse.Namespace) -> None:
    from kaleido_fast.report.figures import explain
    from kaleido_fast.report.negatives_figure import explain_negatives

    if options.negatives:
        if options.run_folder is None:
            raise ValueError("--negatives shows what a run has mined; name the run by --run RUN")
        explain_negatives(options.shards, options.id, options.out, options.run_folder)
    else:
        explain(options.shards, options.id, options.out, options.alignment, options.run_folder, options.words or ())
    print(options.out)


def settings(options: argparse.Namespace) -> None:
    from kaleido_fast.settings_table import as_markdown, as_table, find_settings

    print(as_markdown() if options.markdown else as_table(find_settings(options.prefix)), end="" if options.markdown else "\n")


def parity(options: argparse.Namespace) -> int:
    from kaleido_fast.parity.run import check_parity
    from kaleido_fast.parity.table import parity_table

    report = check_parity(parity_config(options.arguments))
    print(parity_table(report))
    return 0 if report.holds else 1


def parity_config(arguments: Sequence[str]) -> "Config":
    """The settings of `[CONFIG.yaml] [key=value …]`; `device=` stands for `run.device=`.

    Raises:
        ValueError: as `load_config`.
    """
    from kaleido_fast.config import build_config, load_config
    from kaleido_fast.parity.run import DEMO

    overrides = [f"run.{argument}" if argument.startswith("device=") else argument for argument in arguments]
    if overrides and "=" not in overrides[0]:
        return load_config(overrides[0], overrides[1:])
    return build_config(copy.deepcopy(DEMO), overrides)


def bench_kernels(options: argparse.Namespace) -> None:
    import json

    import torch

    from kaleido_fast.bench.environment import describe_environment
    from kaleido_fast.bench.kernels import bench_kernels, kernel_table
    from kaleido_fast.training.workers.group import own_device

    if not torch.cuda.is_available():
        raise ValueError("bench kernels needs a CUDA device, found none: on a CPU the references run, not the kernels")
    device = own_device("cuda")
    figures = describe_environment(device) | bench_kernels(device, options.case or ())
    print(kernel_table(figures))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def bench_training(options: argparse.Namespace) -> None:
    import json

    from kaleido_fast.bench.environment import describe_environment
    from kaleido_fast.bench.training_verbs import bench_training
    from kaleido_fast.config import load_config
    from kaleido_fast.training.workers.group import own_device

    config = load_config(options.config, options.overrides)
    text, figures = bench_training(config, options)
    print(text)
    if options.out:
        figures = describe_environment(own_device(config.run.device)) | {"config": str(options.config), options.tool: figures}
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
