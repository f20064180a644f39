"""The verb `serve`: its arguments, and what it does."""

import argparse
import importlib.util

from kaleido_fast.options import typed_path

HERE = "127.0.0.1"
PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "jinja2": "jinja2", "python_multipart": "python-multipart"}


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("serve", help="a page over an index: type or drop a photograph, and see products")
    verb.add_argument("index", type=typed_path, metavar="INDEX")
    verb.add_argument("--host", default=HERE, help="address to listen at; %(default)s, this machine alone, without it")
    verb.add_argument("--port", type=int, default=8000, metavar="N", help="%(default)s without it")
    verb.add_argument("--model", type=typed_path, metavar="DIR", help="exported folder that reads the queries; the index's own "
                      "without it")
    verb.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    verb.add_argument("--upload-mib", type=float, default=10, metavar="MIB",
                      help="most of a photograph that is sent; %(default)s without it")
    verb.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> None:
    """Serve until the process is stopped."""
    lacking = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise ValueError(f"serve needs the packages {', '.join(PACKAGES.values())}, not found: {', '.join(lacking)}; pip "
                         "install 'kaleido_fast[serve]'")
    from kaleido_fast.search.index import KaleidoIndex
    from kaleido_fast.search.page.app import create_app, run
    from kaleido_fast.search.page.limits import Limits

    if not 0 < options.upload_mib <= 1024:
        raise ValueError(f"--upload-mib={options.upload_mib:g} must lie above 0 and not above 1024")
    index = KaleidoIndex.open(options.index, model=options.model, device=options.device)
    print(f"{len(index):,} products at http://{options.host}:{options.port}  (Ctrl+C ends it)", flush=True)
    run(create_app(index, Limits(upload_mib=options.upload_mib)), options.host, options.port)
