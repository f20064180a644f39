"""A small catalogue made in the test: plain squares of colour on white, some products with two photographs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 150, 40), "blue": (30, 40, 190), "black": (20, 20, 20)}


def draw_photograph(colour: tuple[int, int, int], size: tuple[int, int] = (60, 80), seed: int = 0) -> Image.Image:
    """A textured block of colour on white; (width, height)."""
    noise = np.random.default_rng(seed).integers(-12, 12, (size[1], size[0], 3))
    pixels = np.full((size[1], size[0], 3), 250)
    pixels[size[1] // 4 : -size[1] // 4, size[0] // 4 : -size[0] // 4] = colour
    return Image.fromarray((pixels + noise // 4).clip(0, 255).astype(np.uint8))


@pytest.fixture
def photograph() -> Callable[..., Image.Image]:
    """The drawing of one photograph: photograph(colour, (width, height), seed)."""
    return draw_photograph


@pytest.fixture
def make_catalogue(tmp_path: Path) -> Callable[..., Path]:
    """make(num_products) -> folder with styles.csv and images/."""

    def make(num_products: int = 60, name: str = "catalogue") -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        lines = ["id,masterCategory,articleType,productDisplayName,description"]
        for number in range(num_products):
            colour = list(COLOURS)[number % 4]
            kind = ["Shirts", "Shoes", "Bags"][number % 3]
            lines.append(f"p{number},Cat{number % 2},{kind},{colour} {kind} {number},\"a {colour} thing, number {number}\"")
            draw_photograph(COLOURS[colour], seed=number).save(folder / "images" / f"p{number}.jpg", quality=90)
            if number % 5 == 0:
                draw_photograph(COLOURS[colour], (80, 60), number).save(folder / "images" / f"p{number}_1.jpg", quality=90)
        (folder / "styles.csv").write_text("\n".join(lines) + "\n")
        return folder

    return make
