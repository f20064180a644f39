"""A figure as the bytes of a PNG."""

import io
import sys
import warnings

from matplotlib.figure import Figure

MISSING = "missing from font"  # what matplotlib says of each letter that it draws as a box


def png(figure: Figure) -> bytes:
    """The figure's PNG; of letters that no font here has one line on stderr speaks, not one each."""
    stream = io.BytesIO()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        figure.savefig(stream, format="png")
    letters = {str(warning.message).split()[1] for warning in warned if MISSING in str(warning.message)}
    if letters:
        print(f"figure: {len(letters)} letters are drawn as boxes, the font has none for them", file=sys.stderr)
    for warning in warned:
        if MISSING not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return stream.getvalue()
