"""kaleido_fast: pre-training of Kaleido-BERT, a fashion vision-language transformer, on millions of products."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaleido_fast.api import KaleidoBert

__all__ = ["KaleidoBert"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """KaleidoBert when it is first asked for: kernels/ and model/ must import with torch alone."""
    if name != "KaleidoBert":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from kaleido_fast.api import KaleidoBert

    return KaleidoBert
