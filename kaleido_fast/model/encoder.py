"""BERT's post-LN encoder on packed rows (N, H): linear layers never see padding (SPEC 7)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu

from kaleido_fast.model.attention.packed import packed_attention
from kaleido_fast.model.attention.prefix import PrefixRows, prefix_attention
from kaleido_fast.model.precision import LayerNorm
from kaleido_fast.model.settings import ModelSettings

BACKEND = "inductor"  # of torch.compile


class EncoderLayer(nn.Module):
    """a = LN(dense(attention(x)) + x); out = LN(dense(GELU(dense(a))) + a)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        hidden, eps = settings.hidden, settings.layer_norm_eps
        self.settings = settings
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = LayerNorm(hidden, eps=eps)
        self.intermediate = nn.Linear(hidden, settings.intermediate)
        self.output = nn.Linear(settings.intermediate, hidden)
        self.output_norm = LayerNorm(hidden, eps=eps)

    def forward(self, x: Tensor, cumulative: Tensor, longest: int, lengths: Sequence[int]) -> Tensor:
        """(N, H) -> (N, H)."""
        settings = self.settings
        heads, size = settings.heads, settings.hidden // settings.heads
        context = packed_attention(
            self.query_key_value(x).view(-1, 3, heads, size), cumulative, longest, lengths,
            implementation=settings.attention, dropout=settings.attention_dropout if self.training else 0.0,
        ).reshape(x.shape)
        return self.behind_attention(x, context)

    def under_prefix(self, x: Tensor, rows: PrefixRows) -> Tensor:
        """(N, H) -> (N, H) under the prefix mask: all samples' patches, then all samples' words (SPEC 11)."""
        settings = self.settings
        context = prefix_attention(
            self.query_key_value(x).view(-1, 3, settings.heads, settings.hidden // settings.heads), rows,
            implementation=settings.attention, dropout=settings.attention_dropout if self.training else 0.0)
        return self.behind_attention(x, context.reshape(x.shape))

    def behind_attention(self, x: Tensor, context: Tensor) -> Tensor:
        """(n, H) the layer's output of its input and what its heads attended to, both (n, H)."""
        x = self.attention_norm(self._dropped(self.attention_output(context)) + x)
        inner = activate(self.intermediate(x), self.settings.activation)
        return self.output_norm(self._dropped(self.output(inner)) + x)

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.settings.dropout, self.training)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.layers))
        self._compiled: Callable[..., Tensor] | None = None

    def compile_layers(self) -> None:
        """Run every layer through one compiled graph from now on, the same for all of them and whatever the lengths."""
        self._compiled = torch.compile(_run_layer, dynamic=True, fullgraph=True, backend=BACKEND)

    def follow(self, settings: ModelSettings) -> None:
        """Let every layer compute by these settings from now on, of the same shape."""
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            layer.settings = settings

    def forward(self, x: Tensor, cumulative: Tensor, lengths: Sequence[int]) -> Tensor:
        """(N, H) -> (N, H)."""
        longest = max(lengths, default=0)
        for layer in self.layers:
            x = layer(x, cumulative, longest, lengths) if self._compiled is None else \
                self._compiled(layer, x, cumulative, longest)
        return x

    def under_prefix(self, x: Tensor, rows: PrefixRows) -> Tensor:
        """(N, H) -> (N, H) under the prefix mask; packed rows in, all samples' patches and then all their words out."""
        x = x.index_select(0, rows.from_packed)
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            x = layer.under_prefix(x, rows)
        return x


def _run_layer(layer: EncoderLayer, x: Tensor, cumulative: Tensor, longest: int) -> Tensor:
    return layer(x, cumulative, longest, ())  # lengths themselves would be compiled in


def activate(x: Tensor, activation: str) -> Tensor:
    """GELU: by tanh, as in the authors' and Google's code, or exact, as in Hugging Face's weights."""
    return gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
