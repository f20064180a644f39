"""What was found, for a terminal, a program and a browser."""

import base64
import html
import io
import json
import shutil
from collections.abc import Sequence

from PIL import Image

from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.result import Hit

WIDEST_ID, WIDEST_CATEGORY, NARROWEST_TEXT = 24, 20, 20  # letters of a column
PICTURE_SIDE = 240  # pixels of a picture on the page, at most
STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
ol{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:1.5rem;list-style:none;padding:0}
img{width:100%;height:12rem;object-fit:contain;background:#f4f4f4}p{margin:.3rem 0}small{color:#555}"""


def as_table(hits: Sequence[Hit]) -> str:
    """A row a product, as wide as the terminal."""
    if not hits:
        return "no product"
    header = ("", "score", "id", "category", "text")
    rows = [(str(place), f"{hit.score:.3f}", _cut(hit.id, WIDEST_ID), _cut(hit.subcategory or hit.category, WIDEST_CATEGORY),
             " ".join(hit.text.split())) for place, hit in enumerate(hits, 1)]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(4)]
    room = max(NARROWEST_TEXT, shutil.get_terminal_size((100, 24)).columns - sum(widths) - 2 * len(widths))
    return "\n".join(
        "  ".join([row[0].rjust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]), row[3].ljust(widths[3]),
                   _cut(row[4], room)]).rstrip() for row in (header, *rows))


def as_json(hits: Sequence[Hit]) -> str:
    """A JSON list, a product an object with the fields of Hit."""
    return json.dumps([hit.values() for hit in hits], indent=1, ensure_ascii=False)


def as_page(index: KaleidoIndex, title: str, hits: Sequence[Hit]) -> str:
    """An HTML page that holds its pictures and loads nothing. A picture that cannot be read is named in its place."""
    items = "\n".join(
        f"<li>{_picture(index, hit)}<p>{html.escape(hit.text)}</p>"
        f"<small>{html.escape(hit.id)} · {html.escape(hit.subcategory or hit.category)} · {hit.score:.3f}</small></li>"
        for hit in hits)
    name = html.escape(title or "search")
    return (f"<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title>\n"
            f"<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\n"
            f"<h1>{name}</h1>\n<ol>\n{items}\n</ol>\n{'' if hits else '<p>no product</p>'}</html>\n")


def thumbnail(photograph: bytes, side: int = PICTURE_SIDE) -> bytes:
    """A JPEG of at most `side` pixels. Raises OSError: it cannot be decoded."""
    opened = Image.open(io.BytesIO(photograph))
    opened.draft("RGB", (side, side))
    image = opened.convert("RGB")
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def _picture(index: KaleidoIndex, hit: Hit) -> str:
    try:
        data = thumbnail(index.photograph(hit.product, hit.photograph))
    except (ValueError, OSError) as error:
        return f"<p>{html.escape(str(error))}</p>"
    return f'<img alt="{html.escape(hit.id)}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
