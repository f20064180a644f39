"""Rank photographs by how well they match a text, with a model that `kaleido-fast export` wrote.

    kaleido-fast export runs/x --out exported
    python examples/rank_photographs.py exported "a red summer dress" photographs/*.jpg
"""

import argparse

from kaleido_fast import KaleidoBert


def rank(exported: str, text: str, photographs: list[str]) -> list[tuple[float, str]]:
    """(match score, photograph), the best match first."""
    model = KaleidoBert.from_pretrained(exported)
    scores = model.score(photographs, [text], all_pairs=True)[:, 0]  # every photograph with the one text
    return sorted(zip(scores.tolist(), photographs, strict=True), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", help="folder that `kaleido-fast export` wrote, or a run's")
    parser.add_argument("text")
    parser.add_argument("photographs", nargs="+")
    options = parser.parse_args()
    for score, photograph in rank(options.exported, options.text, options.photographs):
        print(f"{score:7.3f}  {photograph}")


if __name__ == "__main__":
    main()
