"""kaleido_fast: pre-training of Kaleido-BERT, a fashion vision-language transformer, on millions of products."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaleido_fast.api import KaleidoBert
    from kaleido_fast.search.index import KaleidoIndex

__all__ = ["KaleidoBert", "KaleidoIndex"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """KaleidoBert and KaleidoIndex when they are first asked for: kernels/ and model/ must import with torch alone."""
    if name == "KaleidoBert":
        from kaleido_fast.api import KaleidoBert

        return KaleidoBert
    if name == "KaleidoIndex":
        from kaleido_fast.search.index import KaleidoIndex

        return KaleidoIndex
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
