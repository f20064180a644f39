"""The packed encoder against Hugging Face's BertModel."""

import pytest
import torch

from kaleido_fast.model.bert_weights import load_bert
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings

LENGTHS = (7, 1, 12, 4)


@pytest.mark.parametrize(("ours", "theirs"), [("gelu_tanh", "gelu_new"), ("gelu_erf", "gelu")])
def test_text_alone_equals_hugging_face_bert(ours: str, theirs: str) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    shape = {"num_attention_heads": 4, "intermediate_size": 56, "max_position_embeddings": 40}
    bert = BertModel(BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=3, hidden_act=theirs, **shape)).eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms' weights and biases too
    settings = ModelSettings(hidden=32, layers=3, heads=4, intermediate=56, max_positions=40, activation=ours)
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=8), VocabularySettings(100, 128), 60).eval()
    load_bert(model, bert.state_dict())

    tokens = torch.randint(0, 100, (len(LENGTHS), max(LENGTHS)))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    with torch.no_grad():
        expected = bert(tokens, attention_mask=mask)
        encoded = model.encode(tokens.int(), torch.tensor(LENGTHS, dtype=torch.int32), LENGTHS, torch.zeros(0, 55, 192),
                               torch.zeros(len(LENGTHS), 0, dtype=torch.int32), levels=())
    states = torch.cat([state[:n] for state, n in zip(expected.last_hidden_state, LENGTHS, strict=True)])
    torch.testing.assert_close(encoded.sequence, states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoded.pooled, expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_a_bert_of_another_width_is_refused() -> None:
    model = KaleidoBertModel(ModelSettings(hidden=32, layers=1, heads=4, intermediate=56), KaleidoSettings(patch_size=8),
                             VocabularySettings(100, 128), 60)
    with pytest.raises(ValueError, match=r"hidden width 48, the model has 32"):
        load_bert(model, {"embeddings.word_embeddings.weight": torch.zeros(100, 48)})
    with pytest.raises(ValueError, match="no 'embeddings.word_embeddings.weight'"):
        load_bert(model, {"something": torch.zeros(1)})


@pytest.mark.parametrize("missing", ["pooler", "layer"])
def test_old_names_longer_tables_and_missing_parts(missing: str) -> None:
    """Google's first files call a norm's weight gamma and its bias beta, and pad the word table."""
    from transformers import BertConfig, BertForPreTraining

    config = BertConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=56)
    weights = BertForPreTraining(config).state_dict()
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"):
           torch.randn_like(value) if value.is_floating_point() else value for name, value in weights.items()}
    old = {name: value for name, value in old.items() if missing != "pooler" or "pooler" not in name}
    settings = ModelSettings(hidden=32, layers=2, heads=4, intermediate=56)
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=8), VocabularySettings(100, 128), 60)
    if missing == "layer":
        del old["bert.encoder.layer.0.output.dense.bias"]
        with pytest.raises(ValueError, match="'encoder.layer.0.output.dense.bias' is missing; the BERT's weights are not"):
            load_bert(model, old)
        return
    loaded = load_bert(model, old)
    assert loaded.random == ("pooler",)
    assert all("seq_relationship" in name or "decoder" in name or "position_ids" in name for name in loaded.unused)
    norm = model.encoder.layers[1].output_norm
    assert torch.equal(norm.weight, old["bert.encoder.layer.1.output.LayerNorm.gamma"])
    assert torch.equal(model.amlm.bias, old["cls.predictions.bias"][:100])


def test_a_table_with_too_few_words_is_refused() -> None:
    model = KaleidoBertModel(ModelSettings(hidden=32, layers=1, heads=4, intermediate=56), KaleidoSettings(patch_size=8),
                             VocabularySettings(100, 128), 60)
    with pytest.raises(ValueError, match="90 words, the shards' vocabulary has 100; prepare the shards with its vocab.txt"):
        load_bert(model, {"embeddings.word_embeddings.weight": torch.zeros(90, 32)})
