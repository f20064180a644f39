"""BERT's post-LN encoder on packed rows (N, H): linear layers never see padding (SPEC 7)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import dropout, gelu

from kaleido_fast.model.attention import packed_attention
from kaleido_fast.model.settings import ModelSettings


class EncoderLayer(nn.Module):
    """a = LN(dense(attention(x)) + x); out = LN(dense(GELU(dense(a))) + a)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        hidden, eps = settings.hidden, settings.layer_norm_eps
        self.settings = settings
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=eps)
        self.intermediate = nn.Linear(hidden, settings.intermediate)
        self.output = nn.Linear(settings.intermediate, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=eps)

    def forward(self, x: Tensor, cumulative: Tensor, lengths: Sequence[int]) -> Tensor:
        """(N, H) -> (N, H)."""
        settings = self.settings
        heads, size = settings.heads, settings.hidden // settings.heads
        query, key, value = self.query_key_value(x).view(-1, 3, heads, size).unbind(1)
        context = packed_attention(
            query, key, value, cumulative, lengths, implementation=settings.attention,
            dropout=settings.attention_dropout if self.training else 0.0,
        ).reshape(x.shape)
        x = self.attention_norm(self._dropped(self.attention_output(context)) + x)
        inner = activate(self.intermediate(x), settings.activation)
        return self.output_norm(self._dropped(self.output(inner)) + x)

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.settings.dropout, self.training)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.layers))

    def forward(self, x: Tensor, cumulative: Tensor, lengths: Sequence[int]) -> Tensor:
        """(N, H) -> (N, H)."""
        for layer in self.layers:
            x = layer(x, cumulative, lengths)
        return x


def activate(x: Tensor, activation: str) -> Tensor:
    """GELU: by tanh, as in the authors' and Google's code, or exact, as in Hugging Face's weights."""
    return gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
