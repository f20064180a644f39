"""The kaleido figure from shards: `kaleido-fast explain`."""

from pathlib import Path

import pytest
from PIL import Image

from kaleido_fast.data.shards import Split
from kaleido_fast.report.figures import explain


def test_a_product_is_drawn(tiny_shards: Path, tmp_path: Path) -> None:
    """The same product gives the same picture, another product another."""
    ids = [product.decode() for product in Split.open(tiny_shards, "test").products["id"][:2]]
    pictures = []
    for number, product in enumerate((None, ids[0], ids[1])):
        out = tmp_path / "new" / f"{number}.png"
        explain(tiny_shards, product, out)
        assert Image.open(out).size[0] > 1000
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[1] != pictures[2]


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_product_of_any_split_is_found(tiny_shards: Path, tmp_path: Path, name: str) -> None:
    explain(tiny_shards, Split.open(tiny_shards, name).products["id"][-1].decode(), tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_product_is_named(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no product 'nobody' there; it has such as '"):
        explain(tiny_shards, "nobody", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
