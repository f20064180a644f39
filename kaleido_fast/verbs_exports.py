"""The verb `export`: a trained model as a folder for this package, for Hugging Face transformers or as ONNX."""

import argparse
from typing import TYPE_CHECKING

from kaleido_fast.options import typed_path

if TYPE_CHECKING:
    from kaleido_fast.model.pretrained import Pretrained

FORMATS = ("kaleido", "huggingface", "onnx")


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("export", help="a run's model as a folder: for KaleidoBert, for Hugging Face's AutoModel, or ONNX")
    verb.add_argument("run_folder", type=typed_path, metavar="RUN", help="a run; for other formats than kaleido also a folder "
                      "that was exported")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the run's own settings")
    verb.add_argument("--out", type=typed_path, required=True, help="folder to write; must not exist or be empty")
    verb.add_argument("--step", type=int, help="of the checkpoint; the newest without it")
    verb.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="%(default)s without it")
    verb.set_defaults(run=export)


def export(options: argparse.Namespace) -> None:
    if options.format == "huggingface":
        from kaleido_fast.exports.huggingface import export_huggingface

        difference = export_huggingface(_pretrained(options), options.out)
        print(f"{options.out}: AutoModel and AutoProcessor load it with trust_remote_code=True; largest difference from this "
              f"model {difference:.1e}")
    elif options.format == "onnx":
        from kaleido_fast.exports.onnx_towers import PHOTOGRAPHS, TEXTS, export_onnx

        photographs, texts = export_onnx(_pretrained(options), options.out)
        print(f"{options.out}: {PHOTOGRAPHS}, largest difference from this model {photographs:.1e}; {TEXTS}, {texts:.1e}")
    else:
        from kaleido_fast.config import load_run_config
        from kaleido_fast.training.export import export_run

        data = load_run_config(options.run_folder, options.overrides, needs_shards=True).data
        checkpoint = export_run(options.run_folder, data, options.out, options.step)
        print(f"{options.out}: {checkpoint.name} of {options.run_folder}")


def _pretrained(options: argparse.Namespace) -> "Pretrained":
    from kaleido_fast.config import load_run_config
    from kaleido_fast.loading import load_model
    from kaleido_fast.training.export import load_run

    if options.overrides:
        return load_run(options.run_folder, load_run_config(options.run_folder, options.overrides, needs_shards=True).data,
                        options.step)
    return load_model(options.run_folder, options.step)
