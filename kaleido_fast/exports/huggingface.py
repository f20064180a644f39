"""A folder that transformers loads without kaleido_fast:

    AutoModel.from_pretrained(folder, trust_remote_code=True)        config.json, model.safetensors, modeling_kaleido.py
    AutoProcessor.from_pretrained(folder, trust_remote_code=True)    tokenizer.json, tokenizer_config.json, preprocessing.json
"""

import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from kaleido_fast.exports.one_file import modelling_file
from kaleido_fast.exports.states import drawn_pairs, patch_encoder_arguments, require_exportable, tower_sizes, tower_state
from kaleido_fast.files import require_free, written_beside
from kaleido_fast.model.pretrained import Pretrained

MODELLING = "modeling_kaleido"
USE = '''# A Kaleido-BERT for products

Photographs and texts of products to vectors of length {size}, written by kaleido_fast; it needs torch, transformers, numpy and
Pillow.

```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("THIS FOLDER", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("THIS FOLDER", trust_remote_code=True)
inputs = processor(text=["red cotton dress"], images=["dress.jpg"])
out = model(**inputs)
print(out.image_embeds @ out.text_embeds.T)  # cosines
print(out.itm_logits.softmax(-1)[:, 1])      # probability that text and photograph belong together, pair by pair
```
'''


def export_huggingface(pretrained: Pretrained, out: Path) -> float:
    """Write the folder; beside, then renamed.

    Returns:
        The largest difference of the folder's embeddings and ITM logits from ours, on drawn pairs.
    Raises:
        ValueError: what cannot be exported, `out` is not empty, or transformers is not installed.
    """
    tokenizer = require_exportable(pretrained)
    if importlib.util.find_spec("transformers") is None:
        raise ValueError("export as Hugging Face's model needs the package transformers, not found, to check what it writes; "
                         "pip install 'kaleido_fast[huggingface]'")
    require_free(out)
    with written_beside(out, "export") as beside:
        config = {
            "architectures": ["KaleidoModel"], "model_type": "kaleido_fast", "dtype": "float32",
            "auto_map": {"AutoConfig": f"{MODELLING}.KaleidoConfig", "AutoModel": f"{MODELLING}.KaleidoModel",
                         "AutoProcessor": f"{MODELLING}.KaleidoProcessor"},
            "sizes": tower_sizes(pretrained), "patch_encoder": patch_encoder_arguments(pretrained.model),
        }
        (beside / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        (beside / f"{MODELLING}.py").write_text(modelling_file(type(pretrained.model.patch_encoder)), encoding="utf-8")
        state = {f"towers.{name}": value for name, value in tower_state(pretrained.model).items()}
        save_file(state, beside / "model.safetensors", metadata={"format": "pt"})
        tokenizer.write_json(beside / "tokenizer.json")
        words = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        (beside / "tokenizer_config.json").write_text(json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": pretrained.preprocessing.max_tokens,
            "split_special_tokens": True, **words}, indent=1), encoding="utf-8")
        pretrained.preprocessing.write(beside)
        (beside / "README.md").write_text(USE.format(size=pretrained.model.settings.itc_dim), encoding="utf-8")
        return _difference(beside, pretrained)


@torch.no_grad()
def _difference(folder: Path, pretrained: Pretrained) -> float:
    """As transformers loads it."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    pairs = drawn_pairs(pretrained)
    out = model(input_ids=pairs.tokens, attention_mask=pairs.attention_mask, pixel_values=pairs.squares)
    compared = ((out.image_embeds, pairs.photographs), (out.text_embeds, pairs.texts), (out.itm_logits, pairs.itm))
    return max(float((theirs - ours).abs().max()) for theirs, ours in compared)
