"""Show, Attend and Tell (Xu et al. 2015): an LSTM that looks at one part of the picture for each word (SPEC 5).

    e_ti = (U a_i + u_i) . (W h_{t-1} + P E y_{t-1}) / sqrt(A) - b                            what a word asks of place i
    alpha_ti = sigmoid(e_ti) / sum_j sigmoid(e_tj)                                            soft attention
    beta_t = sigmoid(f(h_{t-1}, E y_{t-1})),  z_t = beta_t sum_i alpha_ti a_i                 gated context
    h_t  = LSTM([E y_{t-1}, z_t], h_{t-1})
    p(y_t) = softmax(O (E y_{t-1} + L_h h_t + L_z z_t))                                       deep output
    loss = (sum_t (cross entropy + cost beta_t) + coverage sum_i (1 - sum_t beta_t alpha_ti)^2) / words
    map_ti = beta_t alpha_ti + (1 - beta_t) map_{t-1,i}                                       where word t looked

Ours where the paper's differs. A place's number u_i and the word before have a say in its score: the paper's attention for
word t has not seen word t - 1 yet. The score is a product instead of a perceptron: a step in half the time. Sigmoids
instead of exponentials (Chorowski et al. 2015) let all places of a part share the attention. To look costs a little, so the
gate shuts where the words before say the next one ("long" - "sleeves"); such a word looks where they looked, while an
ungated attention would rest on some corner. Only what was looked at counts in the doubly stochastic regulariser.

Legend: B images, R captions an image (beams; 1 in training), T words, L places, C channels, E, H, A, V as in the settings.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from kaleido_fast.alignment.feature_map import FeatureMap
from kaleido_fast.alignment.settings import AlignSettings

BAR = 2.5  # b, to begin with: what no word asks for has 0.08


class Memory(NamedTuple):
    """What of the pictures every word looks at."""

    features: Tensor  # (B, L, C)
    keys: Tensor  # (B, L, A)


class State(NamedTuple):
    """The LSTM's state."""

    hidden: Tensor  # (B, R, H)
    cell: Tensor  # (B, R, H)
    gated: Tensor  # (B, R, L) fp32, beta alpha of the last word
    heat: Tensor  # (B, R, L) fp32, its map


class CaptionSums(NamedTuple):
    """Sums over a micro-batch."""

    loss: Tensor  # () its part of the step's loss
    entropy: Tensor  # () cross entropy, over words
    looks: Tensor  # () sum of the gates: words that looked
    correct: Tensor  # () words that were the most probable ones


class Captioner(nn.Module):
    """Words of a picture, one after the other, each with where it looks."""

    def __init__(self, network: FeatureMap, settings: AlignSettings, num_words: int) -> None:
        super().__init__()
        self.network, self.num_words, self.settings = network, num_words, settings
        channels, embedding, hidden = network.channels, settings.embedding, settings.hidden
        self.words = nn.Embedding(num_words, embedding)
        self.start_hidden, self.start_cell = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.key, self.query = nn.Linear(channels, settings.attention), nn.Linear(hidden, settings.attention)
        self.place = nn.Parameter(torch.zeros(network.side**2, settings.attention))
        self.word_query = nn.Linear(embedding, settings.attention, bias=False)
        self.bar = nn.Parameter(torch.tensor([BAR]))
        self.gate = nn.Linear(hidden + embedding, 1)
        self.lstm = nn.LSTMCell(embedding + channels, hidden)
        self.from_hidden, self.from_context = nn.Linear(hidden, embedding), nn.Linear(channels, embedding)
        self.output = nn.Linear(embedding, num_words)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.normal_(self.words.weight, std=self.settings.embedding**-0.5)
        nn.init.normal_(self.place, std=0.5)
        for bias in (self.lstm.bias_ih, self.lstm.bias_hh):  # the gate that forgets begins open
            bias[self.settings.hidden : 2 * self.settings.hidden] = 0.5

    def look(self, images: Tensor) -> Memory:
        """The memory of (B, S, S, 3) uint8 squares."""
        features = self.network(images)
        return Memory(features, self.key(features) + self.place)

    def start(self, memory: Memory) -> State:
        """The state before the first word, from the mean of the features; R = 1."""
        mean = memory.features.mean(dim=1, keepdim=True)
        nowhere = torch.zeros_like(memory.features[:, None, :, 0], dtype=torch.float32)
        return State(torch.tanh(self.start_hidden(mean)), torch.tanh(self.start_cell(mean)), nowhere, nowhere)

    def step(self, memory: Memory, state: State, words: Tensor) -> tuple[Tensor, Tensor, State]:
        """Read one word a caption.

        Args:
            words: (B, R) int64, the words before.
        Returns:
            (B, R, E), what `scores` takes; (B, R, L) fp32 maps; the state.
        """
        embedded = self.words(words)
        query = self.query(state.hidden) + self.word_query(embedded)
        asked = torch.bmm(query, memory.keys.mT).float() / self.settings.attention**0.5
        shares = torch.sigmoid(asked - self.bar)
        if self.training and self.settings.place_dropout:
            shares = shares.masked_fill(torch.rand_like(shares) < self.settings.place_dropout, 0.0)
        attention = shares / shares.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        gate = self.gate(torch.cat([state.hidden, embedded], dim=-1)).sigmoid()
        gated = gate * attention
        context = torch.bmm(gated.to(memory.features.dtype), memory.features)
        inputs = torch.cat([embedded, context], dim=-1).flatten(0, 1)
        hidden, cell = self.lstm(inputs, (state.hidden.flatten(0, 1), state.cell.flatten(0, 1)))
        heat = gated + (1 - gate) * state.heat
        state = State(hidden.view(*words.shape, -1), cell.view(*words.shape, -1), gated, heat)
        return embedded + self.from_hidden(state.hidden) + self.from_context(context), heat, state

    def scores(self, outputs: Tensor) -> Tensor:
        """(…, E) -> (…, V) logits."""
        return self.output(dropout(outputs, self.settings.dropout, self.training))

    def read(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the words of given texts look (teacher forcing).

        Args:
            tokens: (B, T) ids from [CLS] on.
        Returns:
            (B, T - 1, E), (B, T - 1, L) fp32 maps and beta alpha: entry t belongs to the word behind tokens[:, t].
        """
        memory = self.look(images)
        state, outputs, heats, gated = self.start(memory), [], [], []
        for t in range(tokens.shape[1] - 1):
            out, heat, state = self.step(memory, state, tokens[:, t : t + 1].long())
            outputs.append(out)
            heats.append(heat)
            gated.append(state.gated)
        return torch.cat(outputs, dim=1), torch.cat(heats, dim=1), torch.cat(gated, dim=1)

    def forward(self, images: Tensor, tokens: Tensor, lengths: Tensor, num_words: float) -> CaptionSums:
        """A micro-batch's part of the loss.

        Args:
            tokens: (B, T) ids, [CLS] … [SEP], then padding.
            lengths: (B,) of them; 0 for a sample that does not count.
            num_words: of the whole optimizer step, over all workers.
        """
        outputs, _, gated = self.read(images, tokens)
        real = torch.arange(1, tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T - 1)
        logits, targets = self.scores(outputs)[real].float(), tokens[:, 1:][real].long()
        entropy = cross_entropy(logits, targets, reduction="sum")
        covered = (gated * real.unsqueeze(-1)).sum(dim=1)  # (B, L)
        coverage, looks = ((1 - covered).square().sum(dim=1) * (lengths > 0)).sum(), covered.sum()
        loss = (entropy + self.settings.look_cost * looks + self.settings.coverage * coverage) / max(num_words, 1)
        return CaptionSums(loss, entropy.detach(), looks.detach(), (logits.argmax(-1) == targets).sum())
