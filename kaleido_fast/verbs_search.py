"""`kaleido-fast index` and `search`: their arguments and what they do, a few lines that call the library.

Imports stand inside, so that a verb loads what it needs and nothing else.
"""

import argparse
from typing import TYPE_CHECKING

from kaleido_fast.catalogue_flags import READERS, add_reader_flags, catalog_help, catalogue_of, reader_flags
from kaleido_fast.options import Option, OptionError, typed_path

if TYPE_CHECKING:
    from kaleido_fast.model.pretrained import Pretrained
    from kaleido_fast.search.sources import ProductSource

TIMEOUT_S = 1800.0  # how long a worker waits for the others
AGAINST = ("both", "photographs", "texts")  # as search/result.py has them, which loads NumPy


def add(verbs: argparse._SubParsersAction) -> None:
    """Declare the verbs."""
    _add_index(verbs)
    _add_search(verbs)


def _add_index(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("index", help="embed a catalogue's photographs and texts, for search")
    verb.add_argument("model", nargs="?", type=typed_path, metavar="MODEL",
                      help="an exported folder or a run, trained with contrast; with --add the index's own without it")
    verb.add_argument("--shards", type=typed_path, metavar="DIR", help="what `prepare` wrote")
    verb.add_argument("--splits", nargs="+", default=[], metavar="SPLIT", help="of the shards; all without it")
    verb.add_argument("--from", dest="source", choices=tuple(READERS), default=next(iter(READERS)),
                      help="what --catalog is; %(default)s without it")
    verb.add_argument("--catalog", type=typed_path, nargs="+", metavar="FILE", help=catalog_help().replace("%", "%%"))
    add_reader_flags(verb)
    verb.add_argument("--out", type=typed_path, required=True, metavar="INDEX", help="folder of the index")
    verb.add_argument("--add", action="store_true", help="take new products into the index that is there")
    verb.add_argument("--remove", nargs="+", metavar="ID", help="take these products out of it, and do nothing else")
    verb.add_argument("--approximate", action="store_true",
                      help="make the index for approximate search too; without a source, of what is there (needs faiss-cpu)")
    verb.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    verb.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of matrix products; fp32 without it")
    verb.add_argument("--batch", type=int, default=64, metavar="N", help="photographs at once, a multiple of 16; 64 without it")
    verb.add_argument("--decode-threads", type=int, default=2, metavar="N", help="that decode photographs; 2 without it")
    verb.set_defaults(run=index)


def _add_search(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("search", help="products of an index by a text, a photograph or both")
    verb.add_argument("index", type=typed_path, metavar="INDEX")
    verb.add_argument("text", nargs="?", default="", metavar="TEXT", help='such as "red cotton dress"')
    verb.add_argument("--image", type=typed_path, metavar="FILE", help="a photograph of what is looked for")
    verb.add_argument("--like", default="", metavar="ID", help="what is like this product of the index")
    verb.add_argument("-k", type=int, default=12, metavar="N", help="how many; 12 without it")
    verb.add_argument("--category", default="", metavar="NAME", help="of this category or sub-category alone")
    verb.add_argument("--against", choices=AGAINST, default=AGAINST[0],
                      help="what of the products is compared; %(default)s without it")
    verb.add_argument("--rerank", type=int, default=0, metavar="N", help="rank the first N again by matching, which is slower")
    verb.add_argument("--approximate", action="store_true", help="take candidates from the approximate index")
    verb.add_argument("--json", action="store_true", help="print the results as JSON")
    verb.add_argument("--html", type=typed_path, metavar="FILE", help="write a page with their pictures")
    verb.add_argument("--model", type=typed_path, metavar="DIR", help="exported folder that reads the query; the index's own "
                      "without it")
    verb.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    verb.set_defaults(run=search)


def index(options: argparse.Namespace) -> int:
    from kaleido_fast.search.build import build_index, remove_products
    from kaleido_fast.search.encoder import Encoder
    from kaleido_fast.training.workers.failure import one_worker_speaks, run_together
    from kaleido_fast.training.workers.group import start_workers

    if options.remove:
        if options.model or options.shards or options.images or options.add:
            raise ValueError("--remove takes products out and does nothing else; leave out MODEL, --shards, --images and --add")
        print(remove_products(options.out, options.remove).describe())
        return 0
    if options.approximate and not (options.model or options.shards or options.images or options.add):
        return _approximate(options)
    with one_worker_speaks():
        source = _source(options)
        pretrained = _pretrained(options)
        if options.batch < 16 or options.batch % 16:
            raise ValueError(f"--batch={options.batch} must be a multiple of 16")
    workers = start_workers(options.device, TIMEOUT_S)

    def work() -> int:
        with workers.together():
            encoder = Encoder(pretrained, workers.device, options.precision, options.batch)
        summary = build_index(encoder, source, options.out, workers, add=options.add)
        if workers.is_first:
            print(summary.describe())
            if options.approximate:
                _approximate(options)
        return 0

    return run_together(workers, work, TIMEOUT_S, "by the same command")


def _approximate(options: argparse.Namespace) -> int:
    from kaleido_fast.search.approximate import make_approximate
    from kaleido_fast.search.folder import read_contents

    print(make_approximate(options.out, read_contents(options.out)).describe())
    return 0


def _pretrained(options: argparse.Namespace) -> "Pretrained":
    from kaleido_fast.loading import load_model
    from kaleido_fast.search.folder import MODEL

    if options.model is None and not options.add:
        raise ValueError("MODEL: not given; name an exported folder or a run that was trained with contrast")
    return load_model(options.model or options.out / MODEL)


def _source(options: argparse.Namespace) -> "ProductSource":
    from kaleido_fast.data.catalogue.skipping import Skipped
    from kaleido_fast.search.pictures import products_of_catalogue, products_of_folder
    from kaleido_fast.search.sources import PictureProducts, ShardProducts

    if bool(options.shards) == bool(options.images):
        raise ValueError("give either --shards DIR, or --images DIR with or without --catalog FILE")
    given = {name: getattr(options, name) for name in ("catalog", *reader_flags()) if getattr(options, name) is not None}
    if options.shards:
        if given:
            raise OptionError(Option(next(iter(given))), " goes with ", Option("images"), ", not with ", Option("shards"))
        return ShardProducts(options.shards, options.splits, options.decode_threads)
    if options.splits:
        raise OptionError(Option("splits"), " goes with ", Option("shards"), ", not with ", Option("images"))
    if not options.catalog:
        products = products_of_folder(options.images)
    else:
        skipped = Skipped()
        products = products_of_catalogue(catalogue_of(options.source, given), options.images, skipped)
        if skipped.counts:
            print("left out: " + ", ".join(f"{count:,} x {reason} ({skipped.examples[reason][0]})"
                                           for reason, count in skipped.counts.items()))
    return PictureProducts(options.images, products, options.decode_threads)


def search(options: argparse.Namespace) -> None:
    from kaleido_fast.search.index import KaleidoIndex
    from kaleido_fast.search.shown import as_json, as_page, as_table

    index = KaleidoIndex.open(options.index, model=options.model, device=options.device, approximate=options.approximate)
    hits = index.search(options.text, image=options.image, like=options.like, k=options.k, category=options.category,
                        rerank=options.rerank, against=options.against)
    if options.html:
        from kaleido_fast.files import replace_text

        replace_text(options.html, as_page(index, options.text, hits))
    if options.json:
        print(as_json(hits))
    else:
        print(as_table(hits))
        if options.html:
            print(options.html)
