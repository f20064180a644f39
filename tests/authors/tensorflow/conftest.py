"""The writer, and a small checkpoint of every type in three data files."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.authors.tensorflow import writer as tf_writer
from tests.places import GOLDEN

CHECKPOINT = GOLDEN / "tf_checkpoint" / "model.ckpt-4"


@pytest.fixture(scope="session")
def writer() -> ModuleType:
    return tf_writer


@pytest.fixture(scope="session")
def golden() -> Path:
    """The prefix of the checkpoint that TensorFlow wrote."""
    return CHECKPOINT


@pytest.fixture(scope="session")
def values() -> dict[str, np.ndarray]:
    """Variables of all types that NumPy has, a scalar and one without numbers among them."""
    random = np.random.default_rng(5)
    tables = {f"scope/layer_{number}/{kind}": random.standard_normal((number + 1, 3)).astype(kind)
              for number in range(8) for kind in ("float16", "float32", "float64")}
    return tables | {"int32": np.array([[-3, 2**31 - 1]], np.int32), "global_step": np.array(-(2**40), np.int64),
                     "none": np.zeros((0, 5), np.float32)}
