"""ELMo: word vectors mixed from the layers of a bidirectional LSTM language model that reads characters.

Peters et al. 2018, "Deep contextualized word representations" (arXiv 1802.05365). Sizes, gates, clipping and initial weights
that the paper leaves open follow the authors' training code, github.com/allenai/bilm-tf (`bilm/training.py`,
`bin/train_elmo.py`), and the released `elmo_2x4096_512_2048cnn_2xhighway` weights.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ELMoConfig:
    """The paper's model (section 3.4): 2 layers of 4096 units each way, projected to 512; 2048 character filters; 2 highways.

    `filters` are (width in characters, number of filters). A `vocab_size` of None builds what was released: the model
    without its softmax, which gives representations and no loss. (The paper does not state the softmax's vocabulary.)
    """

    vocab_size: int | None = None  # words that the softmax can predict
    num_characters: int = 262  # 261 in the training script; the released weights have one more
    max_characters: int = 50  # of a word, its border marks included
    character_size: int = 16
    filters: tuple[tuple[int, int], ...] = (
        (1, 32),
        (2, 32),
        (3, 64),
        (4, 128),
        (5, 256),
        (6, 512),
        (7, 1024),
    )
    num_highways: int = 2
    cell_size: int = 4096  # units of an LSTM
    hidden_size: int = 512  # what a word's characters and an LSTM's units are projected to
    num_layers: int = 2
    dropout: float = 0.1
    clip: float = 3.0  # largest magnitude of a cell and of a projected unit

    @classmethod
    def small(cls) -> "ELMoConfig":
        """The released small model, 1024/128 with one highway (table at allennlp.org/elmo)."""
        return cls(cell_size=1024, hidden_size=128, num_highways=1)

    @classmethod
    def medium(cls) -> "ELMoConfig":
        """The released medium model, 2048/256 with one highway (table at allennlp.org/elmo)."""
        return cls(cell_size=2048, hidden_size=256, num_highways=1)

    @classmethod
    def tiny(cls) -> "ELMoConfig":
        """A working model of some 27,000 parameters, softmax included."""
        return cls(
            vocab_size=64,
            max_characters=8,
            character_size=8,
            filters=((1, 8), (2, 8), (3, 16)),
            cell_size=32,
            hidden_size=16,
        )


@dataclass
class ELMoOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar, the mean of the two below, if labels were given.
        forward_loss: every word but the first, predicted from the words before it.
        backward_loss: every word but the last, predicted from the words after it.
        logits: (B, T, vocab_size), the forward model's for the next word; None without a softmax.
        backward_logits: (B, T, vocab_size), the backward model's for the previous word.
        last_hidden_state: (B, T, 2D), the top layer, forward half then backward half.
        hidden_states: h_0 to h_L of section 3.2, (B, T, 2D) each; h_0 is the word's own vector, twice.
        elmo: (B, T, 2D), their mix (eq. 1).
    """

    loss: Tensor | None
    forward_loss: Tensor | None
    backward_loss: Tensor | None
    logits: Tensor | None
    backward_logits: Tensor | None
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    elmo: Tensor


class CharacterEncoder(nn.Module):
    """A word's vector from its characters: convolutions, max over the word, highways, projection (section 3.4).

    Args:
        config: sizes.
    """

    def __init__(self, config: ELMoConfig) -> None:
        super().__init__()
        width = sum(number for _, number in config.filters)
        self.embedding = nn.Embedding(config.num_characters, config.character_size)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.character_size, number, kernel_size) for kernel_size, number in config.filters
        )
        self.highways = nn.ModuleList(Highway(width) for _ in range(config.num_highways))
        self.projection = nn.Linear(width, config.hidden_size)
        nn.init.uniform_(self.embedding.weight, -1.0, 1.0)
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv1d)
            assert convolution.bias is not None
            nn.init.uniform_(convolution.weight, -0.05, 0.05)
            nn.init.zeros_(convolution.bias)
        nn.init.normal_(self.projection.weight, std=width**-0.5)
        nn.init.zeros_(self.projection.bias)

    def forward(self, character_ids: Tensor) -> Tensor:
        """(B, T, C) characters -> (B, T, D) words, each from its own characters alone."""
        batch, length, _ = character_ids.shape
        characters = self.embedding(character_ids.flatten(0, 1)).transpose(1, 2)  # (B * T, character_size, C)
        # A filter fires where its n-gram stands; the maximum asks only whether it stands anywhere in the word.
        features = torch.cat(
            [F.relu(convolution(characters).amax(dim=-1)) for convolution in self.convolutions], dim=-1
        )  # (B * T, filters)
        for highway in self.highways:
            features = highway(features)  # (B * T, filters)
        words: Tensor = self.projection(features)  # (B * T, D)
        return words.view(batch, length, -1)


class Highway(nn.Module):
    """gate * relu(transform x) + (1 - gate) * x (Srivastava et al. 2015, as in the authors' code).

    Args:
        size: width of input and result.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, size)
        self.transform = nn.Linear(size, size)
        nn.init.normal_(self.gate.weight, std=size**-0.5)
        nn.init.constant_(
            self.gate.bias, -2.0
        )  # the gates start nearly closed: the layer passes its input on
        nn.init.normal_(self.transform.weight, std=size**-0.5)
        nn.init.zeros_(self.transform.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, size) -> (N, size)."""
        gate = torch.sigmoid(self.gate(features))  # (N, size)
        return gate * F.relu(self.transform(features)) + (1.0 - gate) * features


class ProjectedLSTM(nn.Module):
    """One LSTM layer, left to right, whose recurrent state is a projection of its units.

    Args:
        hidden_size: width D of input, recurrent state and result.
        cell_size: number of units.
        clip: cells and projected states are held within ± this.
    """

    def __init__(self, hidden_size: int, cell_size: int, clip: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.cell_size = cell_size
        self.clip = clip
        self.gates = nn.Linear(2 * hidden_size, 4 * cell_size)  # input, candidate, forget, output gate
        self.projection = nn.Linear(cell_size, hidden_size, bias=False)
        nn.init.xavier_uniform_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        nn.init.ones_(self.gates.bias[2 * cell_size : 3 * cell_size])  # start out remembering
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); position t has seen the inputs 0..t."""
        state = inputs.new_zeros(inputs.shape[0], self.hidden_size)  # (B, D)
        cell = inputs.new_zeros(inputs.shape[0], self.cell_size)  # (B, cell)
        states = []
        for step in inputs.unbind(dim=1):  # (B, D)
            gates = self.gates(torch.cat((step, state), dim=-1))  # (B, 4 * cell)
            write, candidate, keep, read = gates.chunk(4, dim=-1)  # (B, cell) each
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(candidate)
            cell = cell.clamp(-self.clip, self.clip)
            state = self.projection(torch.sigmoid(read) * torch.tanh(cell))  # (B, D)
            state = state.clamp(-self.clip, self.clip)
            states.append(state)
        return torch.stack(states, dim=1)


class ScalarMix(nn.Module):
    """ELMo_k = γ Σ_j s_j h_{k,j} with s = softmax(w) (eq. 1).

    w and γ belong to the task that uses the vectors (section 3.2): the language model's loss never reaches them.

    Args:
        num_layers: L; there are L + 1 representations to mix.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers + 1))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, hidden_states: tuple[Tensor, ...]) -> Tensor:
        """L + 1 tensors of (B, T, 2D) -> (B, T, 2D)."""
        shares = self.weights.softmax(dim=0)  # (L + 1,)
        mixed = torch.stack(hidden_states, dim=-1) @ shares  # (B, T, 2D)
        return self.gamma * mixed


class ELMo(nn.Module):
    """Two language models, one each way, over shared word vectors and a shared softmax (section 3.1).

    Args:
        config: sizes.
    """

    config_class: ClassVar[type[ELMoConfig]] = ELMoConfig
    main_input_name: ClassVar[str] = "character_ids"

    def __init__(self, config: ELMoConfig) -> None:
        super().__init__()
        self.config = config
        self.character_encoder = CharacterEncoder(config)
        self.forward_layers = nn.ModuleList(
            ProjectedLSTM(config.hidden_size, config.cell_size, config.clip) for _ in range(config.num_layers)
        )
        self.backward_layers = nn.ModuleList(
            ProjectedLSTM(config.hidden_size, config.cell_size, config.clip) for _ in range(config.num_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.softmax: nn.Linear | None = None
        if config.vocab_size is not None:
            self.softmax = nn.Linear(config.hidden_size, config.vocab_size)
            nn.init.normal_(self.softmax.weight, std=config.hidden_size**-0.5)
            nn.init.zeros_(self.softmax.bias)
        self.scalar_mix = ScalarMix(config.num_layers)

    def forward(
        self, character_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> ELMoOutput:
        """Read sentences both ways; with labels, predict each word from either side.

        Args:
            character_ids: (B, T, C), the characters of every word, sentence marks included as words.
            attention_mask: (B, T), 1 = a word; padding only at the end.
            labels: (B, T), the same words' numbers in the softmax's vocabulary; -100 = never predicted.

        Returns:
            The outputs.

        Raises:
            ValueError: if labels are given to a model without a softmax.
        """
        if labels is not None and self.softmax is None:
            raise ValueError("labels need a softmax: build the model with a config that has a vocab_size")
        words = self.character_encoder(character_ids)  # (B, T, D), the same for both directions
        order = self._reading_order(character_ids, attention_mask)  # (B, T)

        forward_states = self._run(self.forward_layers, words)  # (B, T, D) each
        backward_states = self._run(self.backward_layers, _reorder(words, order))  # in reading order
        backward_states = [
            _reorder(state, order) for state in backward_states
        ]  # back in the sentence's order

        hidden_states = (
            torch.cat((words, words), dim=-1),
            *(torch.cat(pair, dim=-1) for pair in zip(forward_states, backward_states, strict=True)),
        )  # (B, T, 2D) each

        logits = backward_logits = forward_loss = backward_loss = loss = None
        if self.softmax is not None:
            logits = self.softmax(self.dropout(forward_states[-1]))  # (B, T, vocab)
            backward_logits = self.softmax(self.dropout(backward_states[-1]))  # (B, T, vocab)
        if labels is not None and logits is not None and backward_logits is not None:
            # Position k of the forward model has seen t_1..t_k and predicts t_{k+1}; the backward model mirrors it.
            forward_loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            backward_loss = F.cross_entropy(backward_logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())
            loss = (forward_loss + backward_loss) / 2
        return ELMoOutput(
            loss=loss,
            forward_loss=forward_loss,
            backward_loss=backward_loss,
            logits=logits,
            backward_logits=backward_logits,
            last_hidden_state=hidden_states[-1],
            hidden_states=hidden_states,
            elmo=self.scalar_mix(hidden_states),
        )

    def _run(self, layers: nn.ModuleList, words: Tensor) -> list[Tensor]:
        """All layers of one direction; from the second on, a layer's input is added to its result (section 3.4)."""
        states: list[Tensor] = []
        hidden = words  # (B, T, D)
        for index, layer in enumerate(layers):
            inputs = self.dropout(hidden)  # (B, T, D)
            result = layer(inputs)  # (B, T, D)
            hidden = result if index == 0 else result + inputs
            states.append(hidden)
        return states

    @staticmethod
    def _reading_order(character_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, T) positions that turn each sentence round and leave its padding at the end; its own inverse."""
        batch, length, _ = character_ids.shape
        positions = torch.arange(length, device=character_ids.device).expand(batch, length)
        if attention_mask is None:
            return positions.flip(1)
        lengths = attention_mask.sum(dim=1, keepdim=True)  # (B, 1)
        return torch.where(positions < lengths, lengths - 1 - positions, positions)

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two sentences of 12 words, without padding; labels only if there is a softmax."""
        shape = (2, 12, self.config.max_characters)
        inputs = {"character_ids": torch.randint(1, self.config.num_characters, shape, generator=generator)}
        if self.config.vocab_size is not None:
            inputs["labels"] = torch.randint(self.config.vocab_size, (2, 12), generator=generator)
        return inputs


def _reorder(states: Tensor, order: Tensor) -> Tensor:
    """(B, T, D) taken in the order (B, T)."""
    return states.gather(1, order[:, :, None].expand_as(states))
