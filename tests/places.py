"""Where the files lie that tests read."""

from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
CONFIGS = REPO / "configs"
DEMO = CONFIGS / "demo.yaml"
GOLDEN = REPO / "tests" / "golden"
