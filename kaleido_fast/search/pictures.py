"""Products of a folder of pictures, with a catalogue beside it or without."""

import os
from pathlib import Path

from kaleido_fast.data.catalogue.photograph_files import ENDINGS, canonical
from kaleido_fast.data.catalogue.product import Catalogue, PhotographFile
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.options import Option, OptionError
from kaleido_fast.search.sources import PictureProduct


def products_of_folder(images: Path) -> list[PictureProduct]:
    """A product a picture, without text and category, by the file's name without its ending.

    Raises:
        ValueError: no such folder, or no picture in it, or two of one name.
    """
    if not images.is_dir():
        raise OptionError(f"{images}: no such folder of pictures; give ", Option("images"))
    with os.scandir(images) as files:
        names = sorted(file.name for file in files if Path(file.name).suffix[1:].lower() in ENDINGS and file.is_file())
    if not names:
        raise ValueError(f"{images}: no picture there; expected files ending with {', '.join(ENDINGS)}")
    products: dict[str, PictureProduct] = {}
    for name in names:
        product_id = canonical(Path(name).stem)
        if product_id in products:
            raise ValueError(f"{images}: {products[product_id].files[0]} and {name} would both be product {product_id!r}; "
                             "rename one of them")
        products[product_id] = PictureProduct(product_id, "", "", "", (name,))
    return list(products.values())


def products_of_catalogue(catalogue: Catalogue, images: Path, skipped: Skipped) -> list[PictureProduct]:
    """The products of a catalogue whose photographs are files of the folder `images`; what cannot be used goes to `skipped`.

    Raises:
        ValueError: as the catalogue does; a photograph that is no file of the folder.
    """
    products = []
    for product in catalogue.products(skipped):
        names = []
        for photograph in product.photographs:
            if not isinstance(photograph, PhotographFile) or photograph.path.parent != images:
                raise ValueError(f"{catalogue.place}: photograph {photograph.name} is no file in {images}; make shards of the "
                                 "catalogue with `kaleido-fast prepare` and index those")
            names.append(photograph.path.name)
        products.append(PictureProduct(product.id, product.text, product.category, product.subcategory, tuple(names)))
    return products
