"""An exported model of random weights."""

import shutil
from pathlib import Path

import torch

from kaleido_fast.data.preprocessing import Preprocessing
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.weights import save_weights


def exported_model(out: Path, shards: Path, seed: int = 0, **model: object) -> Path:
    """An exported folder of random weights that read the shards' words; `model` are further settings of it."""
    vocabulary = Tokenizer.from_vocab(shards / "vocab.txt").vocabulary()
    torch.manual_seed(seed)
    settings = ModelSettings(hidden=32, layers=1, heads=2, intermediate=64, initializer_range=0.2, **model)
    random = KaleidoBertModel(settings, KaleidoSettings(patch_size=12), VocabularySettings(
        vocabulary.size, vocabulary.padded_size, vocabulary.fingerprint), 60)
    save_weights(out, random, dict(random.state_dict()))
    shutil.copyfile(shards / "vocab.txt", out / "vocab.txt")
    Preprocessing(24, 1024).write(out)
    return out
