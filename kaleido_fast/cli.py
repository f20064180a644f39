"""The command `kaleido-fast <verb>`: its arguments; verbs.py has what each verb does.

Verbs that run a config take it and `key=value`; tools over data take flags.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kaleido_fast import verbs as does, verbs_ablate, verbs_exports, verbs_finetune, verbs_search, verbs_serve
from kaleido_fast.catalogue_flags import SOURCES, add_reader_flags, catalog_help
from kaleido_fast.options import message_with_flags, typed_path

# Read when torch is loaded: an idle OpenMP thread spins for some microseconds, then sleeps. To sleep at once costs small
# matrix products a third of their speed, to spin on makes a busy machine several times slower.
SPIN = ("GOMP_SPINCOUNT", "10000")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; what a user can mend is one line on stderr and exit code 2, never a traceback."""
    os.environ.setdefault(*SPIN)
    options = _parse(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"kaleido-fast {options.verb}: {message_with_flags(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with `key=value` allowed anywhere on the line.

    argparse itself takes positional arguments in one place only, and a flag with several values swallows the settings
    behind it.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    settings = [word for word in rest if "=" in word and not word.startswith("-")] if hasattr(options, "overrides") else []
    if len(settings) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(word for word in rest if word not in settings)}")
    if hasattr(options, "overrides"):
        for name, words in vars(options).items():
            if name != "overrides" and isinstance(words, list):
                settings += [word for word in words if "=" in word]
                setattr(options, name, [word for word in words if "=" not in word])
        options.overrides = [*options.overrides, *settings]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kaleido-fast", description="Pre-train, evaluate and explain Kaleido-BERT.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_generate(verbs)
    _add_prepare(verbs)
    _add_data(verbs)
    _add_runs(verbs)
    verbs_finetune.add(verbs)
    verbs_ablate.add(verbs)
    verbs_search.add(verbs)
    verbs_serve.add(verbs)
    _add_settings(verbs)
    _add_parity(verbs)
    _add_bench(verbs)
    return parser


def _takes_config(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("config", metavar="CONFIG.yaml")
    verb.add_argument("overrides", nargs="*", metavar="key=value")


def _takes_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run_folder", type=typed_path, metavar="RUN")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the run's own settings")


def _add_generate(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("generate", help="draw a catalogue of products with known parts")
    verb.add_argument("--out", type=typed_path, required=True, help="folder to write")
    verb.add_argument("--products", type=int, default=3000)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--size", type=int, default=224, help="side of a photograph in pixels")
    verb.set_defaults(run=does.generate)


def _add_prepare(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("prepare", help="turn a catalogue and its photographs, or the authors' feature files, into shards")
    verb.add_argument("--from", dest="source", choices=SOURCES, default=SOURCES[0],
                      help=f"what the catalogue is; {SOURCES[0]} without it")
    verb.add_argument("--catalog", type=typed_path, required=True, nargs="+", metavar="FILE",
                      help=catalog_help().replace("%", "%%"))
    verb.add_argument("--out", type=typed_path, required=True, help="folder to write; must not exist or be empty")
    add_reader_flags(verb)
    verb.add_argument("--vocab", type=typed_path, help="vocab.txt of a BERT; trained on the catalogue without it")
    verb.add_argument("--vocab-size", type=int)
    verb.add_argument("--max-side", type=int, help="larger photographs are shrunk to this side, in pixels")
    verb.add_argument("--truth", type=typed_path, help="truth.jsonl of a generated catalogue (found beside the catalogue)")
    verb.add_argument("--max-skipped", type=float, help="share of skipped rows that stops the run")
    verb.set_defaults(run=does.prepare)


def _add_data(verbs: argparse._SubParsersAction) -> None:
    tools = verbs.add_parser("data", help="look at shards").add_subparsers(required=True, metavar="TOOL")
    tool = tools.add_parser("check", help="verify every photograph and row; exit code 1 where something is bad")
    tool.add_argument("shards", type=typed_path, metavar="SHARDS")
    tool.set_defaults(run=does.data_check)
    tool = tools.add_parser("show", help="print statistics and draw locked photographs")
    tool.add_argument("shards", type=typed_path, metavar="SHARDS")
    tool.add_argument("--out", type=typed_path, default=Path("contact.png"), help="PNG to write; contact.png without it")
    tool.set_defaults(run=does.data_show)


def _add_runs(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("pretrain", help="pre-train a model as a config says")
    _takes_config(verb)
    verb.add_argument("--resume", choices=["auto"], help="auto: go on with the run in run.out if there is one")
    verb.set_defaults(run=does.pretrain)
    verb = verbs.add_parser("estimate", help="what a run will take: parameters, memory, disk, FLOPs, samples/s and days")
    _takes_config(verb)
    verb.add_argument("--workers", type=int, default=1, metavar="N")
    verb.add_argument("--products", type=int, default=0, help="of the catalogue, where data.shards is not it")
    verb.add_argument("--photographs", type=int, default=0, help="the same in photographs")
    verb.add_argument("--tflops", type=float, default=0.0, help="matrix peak of a worker's GPU in the run's precision, TFLOP/s")
    verb.add_argument("--measure", action="store_true", help="samples/s of a few steps on this device instead")
    verb.set_defaults(run=does.estimate)
    verb = verbs.add_parser("encode", help="store what the patch encoder makes of every photograph, for model.features=stored")
    _takes_config(verb)
    verb.set_defaults(run=does.encode)
    verb = verbs.add_parser("align", help="say which words go with which patches: one alignment file beside each shard")
    _takes_config(verb)
    verb.set_defaults(run=does.align)
    verb = verbs.add_parser("align-eval", help="a captioner's alignments against a generated catalogue's true parts")
    _takes_run(verb)
    verb.add_argument("--truth", type=typed_path, required=True, help="truth.jsonl of the catalogue")
    verb.add_argument("--out", type=typed_path, help="JSON file to write")
    verb.add_argument("--split", choices=["validation", "test"], default="test")
    verb.add_argument("--samples", type=int, default=0, help="of the split; all without it")
    verb.set_defaults(run=does.align_eval)
    verb = verbs.add_parser("evaluate", help="measure a run on held-out products; of a fine-tuned one its task")
    _takes_run(verb)
    verb.add_argument("--per-sample", type=typed_path, metavar="FILE",
                      help="JSON lines to write: the ranks of each query, the answers of each product")
    verb.set_defaults(run=does.evaluate)
    verb = verbs.add_parser("report", help="one HTML file about a run")
    verb.add_argument("run_folder", type=typed_path, metavar="RUN")
    verb.add_argument("--index", type=typed_path, metavar="INDEX", help="what `index` wrote, to show searches of")
    verb.add_argument("--queries", nargs="+", default=[], metavar="TEXT", help="texts to search it for")
    verb.set_defaults(run=does.report)
    verbs_exports.add(verbs)
    _add_import_tf(verbs)
    verb = verbs.add_parser("explain", help="draw a product: the kaleido tasks, and its words with their patches")
    verb.add_argument("shards", type=typed_path, metavar="SHARDS")
    verb.add_argument("--id", help="product id, of any split; the first of the test split without it")
    verb.add_argument("--out", type=typed_path, required=True, help="PNG to write")
    verb.add_argument("--words", nargs="+", metavar="WORD", help="those to show; the aligned ones without it")
    verb.add_argument("--alignment", default="", metavar="NAME", help="of the words; the shards' last without it")
    verb.add_argument("--run", dest="run_folder", type=typed_path, metavar="RUN",
                      help="of pretrain: its tasks and settings; of align: its captioner aligns the words anew")
    verb.add_argument("--negatives", action="store_true",
                      help="a product of the train split beside the negatives that --run has mined for it, instead")
    verb.set_defaults(run=does.explain)


def _add_settings(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("settings", help="every setting of a config: type, default, what is allowed, what it is")
    verb.add_argument("prefix", nargs="?", default="", metavar="PREFIX",
                      help="of the keys, such as train or data.itm; all without it")
    verb.add_argument("--markdown", action="store_true", help="all of them as docs/settings.md has them")
    verb.set_defaults(run=does.settings)


def _add_parity(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("parity", help="the fast path against a plain one, on this machine; exit code 1 past a bound")
    verb.add_argument("arguments", nargs="*", metavar="[CONFIG.yaml] key=value",
                      help="device=cuda, data.shards=..., any setting; the demo's shape without a config")
    verb.set_defaults(run=does.parity)


def _add_import_tf(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("import-tf", help="the authors' TensorFlow checkpoint as a folder for from_pretrained")
    verb.add_argument("--checkpoint", type=typed_path, required=True, metavar="PREFIX",
                      help="of PREFIX.index and PREFIX.data-*")
    verb.add_argument("--out", type=typed_path, required=True, help="folder to write; must not exist or be empty")
    verb.add_argument("--config", type=typed_path, help="config.json of the authors; the one beside the checkpoint without it")
    verb.add_argument("--vocab", type=typed_path, help="vocab.txt of the training; without it texts cannot be read")
    verb.add_argument("--resnet50", type=typed_path, metavar="FILE", help="torchvision's; without it pictures cannot be read")
    verb.add_argument("--scope", help="what the variables' names begin with; found without it")
    verb.add_argument("--allow-unexpected", action="store_true", help="leave variables that are not the model's")
    verb.set_defaults(run=does.import_tf)


def _add_bench(verbs: argparse._SubParsersAction) -> None:
    tools = verbs.add_parser("bench", help="what this machine gives").add_subparsers(required=True, metavar="TOOL")
    tool = tools.add_parser("kernels", help="each operation against its reference, eager and compiled; needs a GPU")
    tool.add_argument("--case", nargs="+", metavar="NAME", help="cut, plan, embed, embed_backward, softmax_kl; all without it")
    tool.add_argument("--out", type=typed_path, help="JSON file to write")
    tool.set_defaults(run=does.bench_kernels)
    _add_training_benches(tools)


def _add_training_benches(tools: argparse._SubParsersAction) -> None:
    for name, text in (("step", "training steps on fixed batches: samples/s, utilisation, memory, other ways beside them"),
                       ("loader", "the loader alone, from photographs or from the store"),
                       ("end-to-end", "the training loop, and its step alone on the same batches")):
        tool = tools.add_parser(name, help=text)
        _takes_config(tool)
        tool.add_argument("--steps", type=int, default=20, help="optimizer steps to time (loader: micro-batches)")
        tool.add_argument("--out", type=typed_path, help="JSON file to write")
        tool.set_defaults(run=does.bench_training, tool=name)
        if name == "step":
            tool.add_argument("--against", nargs="+", default=[], metavar="WAY",
                              help="reference, visualbert, visualbert-compiled, ours-compiled and others")
            tool.add_argument("--tflops", type=float, default=0.0, help="the device's peak; without it a product is timed")
            tool.add_argument("--lengths", metavar="LOW-HIGH", help="tokens of drawn texts; a catalogue's without it")
