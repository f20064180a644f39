"""BERT's post-LN encoder on padded sequences; padding is masked by -10000 on its keys (SPEC 7)."""

from torch import Tensor, nn
from torch.nn.functional import gelu, softmax

from kaleido_fast.model.precision import product_dtype
from kaleido_fast.model.settings import ModelSettings

MASKED = -10000.0  # added to the scores of keys that are padding: their probability is exactly 0


class RoundedLayerNorm(nn.LayerNorm):
    """torch's, rounded to the dtype of products: under autocast what lies between layers is 16 bit, as in the fast path."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(product_dtype(x))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D) + mask) v, heads joined, then a dense layer."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.query = nn.Linear(settings.hidden, settings.hidden)
        self.key = nn.Linear(settings.hidden, settings.hidden)
        self.value = nn.Linear(settings.hidden, settings.hidden)
        self.output = nn.Linear(settings.hidden, settings.hidden)
        self.dropout = nn.Dropout(settings.attention_dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, H) and what is added to the scores, (B, 1, 1, L) -> (B, L, H)."""
        query, key, value = (self._split(dense(x)) for dense in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + mask
        context = self.dropout(softmax(scores, dim=-1)).to(value.dtype) @ value
        return self.output(context.transpose(1, 2).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, A, L, D); head a owns columns a * D to (a + 1) * D."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class ReferenceEncoderLayer(nn.Module):
    """a = LN(attention(x) + x); out = LN(dense(GELU(dense(a))) + a)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        hidden, eps = settings.hidden, settings.layer_norm_eps
        self.attention = Attention(settings)
        self.attention_norm = RoundedLayerNorm(hidden, eps=eps)
        self.intermediate = nn.Linear(hidden, settings.intermediate)
        self.activation = Gelu(settings.activation)
        self.output = nn.Linear(settings.intermediate, hidden)
        self.output_norm = RoundedLayerNorm(hidden, eps=eps)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H)."""
        x = self.attention_norm(self.dropout(self.attention(x, mask)) + x)
        inner = self.activation(self.intermediate(x))
        return self.output_norm(self.dropout(self.output(inner)) + x)


class ReferenceEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ReferenceEncoderLayer(settings) for _ in range(settings.layers))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, L, H), and (B, L) bool, False where it is padding -> (B, L, H); padding's own rows mean nothing."""
        mask = (~real)[:, None, None, :].to(x.dtype) * MASKED
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Gelu(nn.Module):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), or the exact x Phi(x)."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.approximate = "tanh" if activation == "gelu_tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x, approximate=self.approximate)
