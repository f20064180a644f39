"""The command `kaleido-fast <verb>`: each verb is a few lines that call the library.

Verbs that run a config take it and `key=value`; tools over data take flags.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before torch: an idle OpenMP thread spins for some microseconds, then sleeps. To sleep at once costs small matrix
# products a third of their speed, to spin on makes a busy machine several times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; what a user can mend is one line on stderr and exit code 2, never a traceback."""
    options = _parse(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"kaleido-fast {options.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Settings may stand behind flags too: argparse takes positional arguments in one run only."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    settings = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
    settings = settings if hasattr(options, "overrides") else []
    if len(settings) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(argument for argument in rest if argument not in settings)}")
    if settings:
        options.overrides = [*options.overrides, *settings]
    return options


def _generate(options: argparse.Namespace) -> None:
    from kaleido_fast.data.drawn.write import generate_catalogue

    generate_catalogue(options.out, options.products, options.seed, image_size=options.size, progress=True)


def _prepare(options: argparse.Namespace) -> None:
    given = {key: value for key, value in vars(options).items() if key not in ("run", "verb", "source") and value is not None}
    if options.source == "kaleido-tsv":
        _prepare_kaleido_tsv(given)
        return
    from kaleido_fast.data.catalogue import Columns
    from kaleido_fast.data.prepare import PrepareOptions, prepare

    if len(options.catalog) > 1:
        raise ValueError(f"--catalog: {len(options.catalog)} files, but a CSV catalogue is one; several go with --from kaleido-tsv")
    if options.images is None:
        raise ValueError("--images: not given; name the folder of photographs that goes with the CSV file")
    given["catalog"] = options.catalog[0]
    columns = {key: given.pop(key) for key in ("id", "category", "subcategory", "split", "text") if key in given}
    if "text" in columns:
        columns["text"] = tuple(columns["text"])
    print(prepare(PrepareOptions(columns=Columns(**columns), **given)).describe())


def _prepare_kaleido_tsv(given: dict[str, Any]) -> None:
    from kaleido_fast.data.prepare_kaleido_tsv import KaleidoTsvOptions, prepare_kaleido_tsv

    taken = {field.name for field in dataclasses.fields(KaleidoTsvOptions)}
    for name in given:
        if name not in taken:
            raise ValueError(f"--{name.replace('_', '-')}: is for CSV catalogues; --from kaleido-tsv takes --catalog, --out, "
                             "--vocab and --max-skipped")
    print(prepare_kaleido_tsv(KaleidoTsvOptions(**given | {"catalog": tuple(given["catalog"])})).describe())


def _data_check(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from kaleido_fast.data.check import check_folder

    summary = check_folder(options.shards, report=tqdm.write)
    print(summary.describe())
    return 1 if summary.findings else 0


def _data_show(options: argparse.Namespace) -> None:
    from kaleido_fast.report.contact_sheet import show_shards

    print(show_shards(options.shards, options.out))


def _pretrain(options: argparse.Namespace) -> int:
    from kaleido_fast.config import load_config
    from kaleido_fast.training.failure import one_worker_speaks
    from kaleido_fast.training.pretrain import pretrain

    with one_worker_speaks():
        config = load_config(options.config, options.overrides)
    return pretrain(config, resume=options.resume == "auto")


def _encode(options: argparse.Namespace) -> int:
    from kaleido_fast.config import load_config
    from kaleido_fast.training.encode import encode
    from kaleido_fast.training.failure import one_worker_speaks

    with one_worker_speaks():
        config = load_config(options.config, options.overrides)
    return encode(config)


def _align(options: argparse.Namespace) -> int:
    from kaleido_fast.alignment.align import align
    from kaleido_fast.config import load_config
    from kaleido_fast.training.failure import one_worker_speaks

    with one_worker_speaks():
        config = load_config(options.config, options.overrides)
    return align(config)


def _align_eval(options: argparse.Namespace) -> None:
    from kaleido_fast.alignment.evaluate import describe_scores, evaluate_alignments

    print(describe_scores(evaluate_alignments(
        options.run_folder, options.truth, options.overrides, options.out, options.samples, options.split)))


def _evaluate(options: argparse.Namespace) -> None:
    from kaleido_fast.tasks.evaluate import evaluate_run

    evaluate_run(options.run_folder, options.overrides)


def _report(options: argparse.Namespace) -> None:
    from kaleido_fast.report.html import write_report

    print(write_report(options.run_folder))


def _export(options: argparse.Namespace) -> None:
    from kaleido_fast.training.export import export_run

    checkpoint = export_run(options.run_folder, options.out, options.step, options.overrides)
    print(f"{options.out}: {checkpoint.name} of {options.run_folder}")


def _import_tf(options: argparse.Namespace) -> None:
    from kaleido_fast.training.import_tf import ImportOptions, import_tf

    given = {key: value for key, value in vars(options).items() if key not in ("run", "verb")}
    print(import_tf(ImportOptions(**given)).describe())


def _explain(options: argparse.Namespace) -> None:
    from kaleido_fast.report.figures import explain

    explain(options.shards, options.id, options.out)
    print(options.out)
    if options.words:
        from kaleido_fast.report.word_figure import explain_words

        explain_words(options.shards, options.id, options.words, options.alignment, options.run_folder)
        print(options.words)


def _parity(options: argparse.Namespace) -> int:
    from kaleido_fast.parity.run import check_parity, parity_config
    from kaleido_fast.parity.table import parity_table

    report = check_parity(parity_config(options.arguments))
    print(parity_table(report))
    return 0 if report.holds else 1


def _bench_kernels(options: argparse.Namespace) -> None:
    import json

    import torch

    from kaleido_fast.bench.environment import describe_environment
    from kaleido_fast.bench.kernels import bench_kernels, kernel_table

    if not torch.cuda.is_available():
        raise ValueError("bench kernels needs a CUDA device, found none: on a CPU the references run, not the kernels")
    device = torch.device("cuda")
    found = describe_environment(device) | bench_kernels(device, options.case or ())
    print(kernel_table(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kaleido-fast", description="Pre-train, evaluate and explain Kaleido-BERT.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_generate(verbs)
    _add_prepare(verbs)
    _add_data(verbs)
    _add_runs(verbs)
    _add_parity(verbs)
    _add_bench(verbs)
    return parser


def _add_generate(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("generate", help="draw a catalogue of products with known parts")
    verb.add_argument("--out", type=Path, required=True, help="folder to write")
    verb.add_argument("--products", type=int, default=3000)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--size", type=int, default=224, help="side of a photograph in pixels")
    verb.set_defaults(run=_generate)


def _add_prepare(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("prepare", help="turn a catalogue (CSV and photographs), or the authors' feature files, into shards")
    verb.add_argument("--from", dest="source", choices=["csv", "kaleido-tsv"], default="csv",
                      help="kaleido-tsv: the authors' feature files (csv without it)")
    verb.add_argument("--catalog", type=Path, required=True, nargs="+", metavar="FILE",
                      help="CSV file with a header; or feature files, several")
    verb.add_argument("--images", type=Path, help="folder of <id>.jpg, <id>_1.jpg, ... (.png, .webp and others too)")
    verb.add_argument("--out", type=Path, required=True, help="folder to write; must not exist or be empty")
    verb.add_argument("--text", nargs="+", metavar="COLUMN", help="columns joined to the text")
    for name in ("id", "category", "subcategory", "split"):
        verb.add_argument(f"--{name}", metavar="COLUMN", help="" if name == "id" else "'' where there is none")
    verb.add_argument("--vocab", type=Path, help="vocab.txt of a BERT; trained on the catalogue without it")
    verb.add_argument("--vocab-size", type=int)
    verb.add_argument("--max-side", type=int, help="larger photographs are shrunk to this side, in pixels")
    verb.add_argument("--truth", type=Path, help="truth.jsonl of a generated catalogue (found beside the CSV)")
    verb.add_argument("--max-skipped", type=float, help="share of skipped rows that stops the run")
    verb.add_argument("--encoding", help="of the CSV file")
    verb.add_argument("--delimiter", metavar="CHARACTER", help="between its columns, such as ';' or tab; a comma without it")
    verb.set_defaults(run=_prepare)


def _add_data(verbs: argparse._SubParsersAction) -> None:
    tools = verbs.add_parser("data", help="look at shards").add_subparsers(required=True, metavar="TOOL")
    tool = tools.add_parser("check", help="verify every photograph and row; exit code 1 where something is bad")
    tool.add_argument("shards", type=Path, metavar="SHARDS")
    tool.set_defaults(run=_data_check)
    tool = tools.add_parser("show", help="print statistics and draw locked photographs")
    tool.add_argument("shards", type=Path, metavar="SHARDS")
    tool.add_argument("--out", type=Path, default=Path("contact.png"), help="PNG to write; contact.png without it")
    tool.set_defaults(run=_data_show)


def _add_runs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("pretrain", help="pre-train a model as a config says")
    verb.add_argument("config", metavar="CONFIG.yaml")
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.add_argument("--resume", choices=["auto"], help="auto: go on with the run in run.out if there is one")
    verb.set_defaults(run=_pretrain)
    verb = verbs.add_parser("encode", help="store what the patch encoder makes of every photograph, for model.features=stored")
    verb.add_argument("config", metavar="CONFIG.yaml")
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.set_defaults(run=_encode)
    verb = verbs.add_parser("align", help="say which words go with which patches: one alignment file beside each shard")
    verb.add_argument("config", metavar="CONFIG.yaml")
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.set_defaults(run=_align)
    verb = verbs.add_parser("align-eval", help="a captioner's alignments against a generated catalogue's true parts")
    verb.add_argument("run_folder", type=Path, metavar="RUN")
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.add_argument("--truth", type=Path, required=True, help="truth.jsonl of the catalogue")
    verb.add_argument("--out", type=Path, help="JSON file to write")
    verb.add_argument("--split", choices=["validation", "test"], default="test")
    verb.add_argument("--samples", type=int, default=0, help="of the split; all without it")
    verb.set_defaults(run=_align_eval)
    verb = verbs.add_parser("evaluate", help="retrieval, recognition and the kaleido tasks on held-out products")
    verb.add_argument("run_folder", type=Path, metavar="RUN")
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.set_defaults(run=_evaluate)
    verb = verbs.add_parser("report", help="one HTML file about a run")
    verb.add_argument("run_folder", type=Path, metavar="RUN")
    verb.set_defaults(run=_report)
    verb = verbs.add_parser("export", help="a run's model as a folder for KaleidoBert.from_pretrained")
    verb.add_argument("run_folder", type=Path, metavar="RUN")
    verb.add_argument("overrides", nargs="*", metavar="key=value")
    verb.add_argument("--out", type=Path, required=True, help="folder to write; must not exist or be empty")
    verb.add_argument("--step", type=int, help="of the checkpoint; the newest without it")
    verb.set_defaults(run=_export)
    _add_import_tf(verbs)
    verb = verbs.add_parser("explain", help="draw a product's photograph under the five kaleido tasks")
    verb.add_argument("shards", type=Path, metavar="SHARDS")
    verb.add_argument("--id", help="product id, of any split; the first of the test split without it")
    verb.add_argument("--out", type=Path, required=True, help="PNG to write")
    verb.add_argument("--words", type=Path, metavar="PNG", help="a second PNG: the patches that each word is aligned with")
    verb.add_argument("--alignment", default="", metavar="NAME", help="of --words; the shards' last without it")
    verb.add_argument("--run", dest="run_folder", type=Path, metavar="RUN",
                      help="of --words: aligned anew by this align run's captioner, with its attention")
    verb.set_defaults(run=_explain)


def _add_parity(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("parity", help="the fast path against a plain one, on this machine; exit code 1 past a bound")
    verb.add_argument("arguments", nargs="*", metavar="[CONFIG.yaml] key=value",
                      help="device=cuda, data.shards=..., any setting; the demo's shape without a config")
    verb.set_defaults(run=_parity)


def _add_import_tf(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("import-tf", help="the authors' TensorFlow checkpoint as a folder for from_pretrained")
    verb.add_argument("--checkpoint", type=Path, required=True, metavar="PREFIX", help="of PREFIX.index and PREFIX.data-*")
    verb.add_argument("--out", type=Path, required=True, help="folder to write; must not exist or be empty")
    verb.add_argument("--config", type=Path, help="config.json of the authors; the one beside the checkpoint without it")
    verb.add_argument("--vocab", type=Path, help="vocab.txt of the training; without it texts cannot be read")
    verb.add_argument("--resnet50", type=Path, metavar="FILE", help="torchvision's; without it pictures cannot be read")
    verb.add_argument("--scope", help="what the variables' names begin with; found without it")
    verb.add_argument("--allow-unexpected", action="store_true", help="leave variables that are not the model's")
    verb.set_defaults(run=_import_tf)


def _add_bench(verbs: argparse._SubParsersAction) -> None:
    tools = verbs.add_parser("bench", help="what this machine gives").add_subparsers(required=True, metavar="TOOL")
    tool = tools.add_parser("kernels", help="each operation against its reference, eager and compiled; needs a GPU")
    tool.add_argument("--case", nargs="+", metavar="NAME", help="cut, plan, embed, embed_backward, softmax_kl; all without it")
    tool.add_argument("--out", type=Path, help="JSON file to write")
    tool.set_defaults(run=_bench_kernels)
