"""The plain path's text, encoder and pooler against Hugging Face's BertModel, padding included."""

import pytest
import torch

from kaleido_fast.model.bert_weights import load_bert
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.reference.kaleido_bert import ReferenceKaleidoBert
from kaleido_fast.reference.weights import from_fast

LENGTHS = torch.tensor([7, 1, 12, 4])


@pytest.mark.parametrize(("ours", "theirs"), [("gelu_tanh", "gelu_new"), ("gelu_erf", "gelu")])
def test_equals_bert_forward_and_backward(ours: str, theirs: str) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    shape = {"num_attention_heads": 4, "intermediate_size": 56, "max_position_embeddings": 40}
    bert = BertModel(BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=3, hidden_act=theirs, **shape,
                                attn_implementation="eager")).double().eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    settings = ModelSettings(hidden=32, layers=3, heads=4, intermediate=56, max_positions=40, activation=ours)
    parts = settings, KaleidoSettings(patch_size=8), VocabularySettings(100, 128), 60
    fast, plain = KaleidoBertModel(*parts).double(), ReferenceKaleidoBert(*parts).double().eval()
    load_bert(fast, bert.state_dict())
    plain.load_state_dict(from_fast(fast.state_dict()))

    tokens = torch.randint(0, 100, (4, 12))
    real = torch.arange(12) < LENGTHS[:, None]
    expected = bert(tokens, attention_mask=real.long())
    sequence = plain.encoder(plain.embeddings.text(tokens), real)
    pooled = torch.tanh(plain.pooler(sequence[:, 0]))
    torch.testing.assert_close(sequence[real], expected.last_hidden_state[real], rtol=0, atol=1e-12)
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=0, atol=1e-12)

    incoming = torch.randn_like(expected.last_hidden_state) * real[:, :, None]
    ((expected.last_hidden_state * incoming).sum() + expected.pooler_output.sum()).backward()
    ((sequence * incoming).sum() + pooled.sum()).backward()
    layer, twin = plain.encoder.layers[0], bert.encoder.layer[0]
    for own, other in ((layer.attention.query, twin.attention.self.query), (layer.output, twin.output.dense),
                       (layer.attention.value, twin.attention.self.value), (plain.pooler, bert.pooler.dense),
                       (layer.attention.output, twin.attention.output.dense),
                       (layer.attention_norm, twin.attention.output.LayerNorm)):
        torch.testing.assert_close(own.weight.grad, other.weight.grad, rtol=1e-9, atol=1e-11)
    words = plain.embeddings.text.word.weight.grad
    torch.testing.assert_close(words[:100], bert.embeddings.word_embeddings.weight.grad, rtol=1e-9, atol=1e-11)
    assert not words[100:].any()
