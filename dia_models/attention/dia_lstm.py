"""DIA-LSTM: recurrent cells shared by a stage, running along depth (section III-B of the paper)."""

from collections import Counter
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import Attention, ChannelAttention
from dia_models.attention.registry import About, check_reduction, register
from dia_models.errors import ModelInputError, unknown
from dia_models.spec import Network

State = tuple[Tensor, Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
DROPOUT = 0.1  # of a further cell's input


class LSTMCell(nn.Module):
    """One step along depth, with y the input and h, c the previous states (zero at a stage's start).

    i, f, g, o = gates(y) + gates(h);  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) activation(c').
    The cell state passes through the probe point `cell_state`, of shape (batch, channel).
    """

    def __init__(self, input_gates: nn.Module, hidden_gates: nn.Module, activation: str):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        self.input_gates, self.hidden_gates = input_gates, hidden_gates
        self.activation = ACTIVATIONS[activation]
        self.cell_state = nn.Identity()

    def forward(self, y: Float[Tensor, "batch channel"], state: State | None) -> State:
        """Give h' and c'."""
        if state is None:  # h = 0 is the same for every image: one row, broadcast
            hidden, cell = y.new_zeros(1, y.shape[1]), None
        else:
            hidden, cell = state
        i, f, g, o = (self.input_gates(y) + self.hidden_gates(hidden)).chunk(4, dim=1)
        update = i.sigmoid() * g.tanh()
        cell = update if cell is None else torch.addcmul(update, f.sigmoid(), cell)
        cell = self.cell_state(cell)
        return o.sigmoid() * self.activation(cell), cell


class StackedLSTM(ChannelAttention):
    """Cells on top of each other; the hidden state of the last one is the gate."""

    normalized_branch = True

    def __init__(self, cells: list[LSTMCell]):
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.dropout = nn.Dropout(DROPOUT)

    def process(
        self, extracted: Float[Tensor, "batch channel"], state: list[State] | None
    ) -> tuple[Float[Tensor, "batch channel"], list[State]]:
        """Advance every cell by one layer of the stage."""
        states: list[State] = []
        hidden = extracted
        for number, cell in enumerate(self.cells):
            states.append(cell(self.dropout(hidden) if number else hidden, state[number] if state else None))
            hidden = states[-1][0]
        return hidden, states


def full_gates(channels: int) -> nn.Linear:
    """Four gates of a plain LSTM, side by side."""
    return nn.Linear(channels, 4 * channels)


def reduced_gates(channels: int, reduction: int) -> nn.Sequential:
    """Four gates that share a reduction of their input to channels / reduction."""
    hidden = check_reduction(reduction, channels)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 4 * channels))


@register(
    "dia_lstm",
    About("h of an LSTM along depth, gates through N/r", "10N²/r + 2N/r + 8N", "Fig. 6 (middle)"),
    always_shared=True,
)
class DIALSTM(StackedLSTM):
    """The modified LSTM of Fig. 6 (middle): gates(x) = W2 relu(W1 x + b1) + b2, reduced to N/r in between.

    10N²/r + 2N/r + 8N parameters. Each further of `cells` has unreduced gates, 8N² + 8N parameters (Table XIV).
    With `standard` the first cell too has unreduced gates, and tanh at the output: the LSTM of Fig. 6 (left).
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 4,
        cells: int = 1,
        activation: str = "sigmoid",
        standard: bool = False,
    ):
        if cells < 1:
            raise ModelInputError("cells", f"{cells} cells given; at least 1 is needed")
        made = []
        for number in range(cells):
            full = standard or number > 0
            ys, hs = (full_gates(channels) if full else reduced_gates(channels, reduction) for _ in range(2))
            made.append(LSTMCell(ys, hs, "tanh" if standard else activation))
        super().__init__(made)


class ElementwiseGates(nn.Module):
    """gates(x) = w ⊗ expand(relu(W x)) + v, four element-wise maps of the reduced input. N²/r + 8N parameters.

    The paper does not say how N/r values become N; here each serves the r neighbouring channels k·r to k·r + r - 1.
    w starts as the weights of a Linear with one input do, uniform in [-1, 1], v as zero.
    """

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.reduction = reduction
        self.reduce = nn.Linear(channels, check_reduction(reduction, channels), bias=False)
        self.weight = nn.Parameter(torch.empty(4, channels).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.zeros(4, channels))

    def forward(self, x: Float[Tensor, "batch channel"]) -> Float[Tensor, "batch gates"]:
        """The four gates side by side, before their activations."""
        expanded = self.reduce(x).relu().repeat_interleave(self.reduction, dim=1)
        return torch.addcmul(self.bias, self.weight, expanded[:, None, :]).flatten(1)


@register(
    "dia_lstm_light", About("the same with element-wise gates", "2N²/r + 16N", "Fig. 6 (right)"), always_shared=True
)
class DIALSTMLight(StackedLSTM):
    """DIA-LSTM (Light), Fig. 6 (right): element-wise gates on an input reduced to N/r. 2N²/r + 16N parameters.

    The default r = 8 comes closest to the parameter counts that the paper prints for it.
    """

    def __init__(self, channels: int, *, reduction: int = 8):
        ys, hs = (ElementwiseGates(channels, reduction) for _ in range(2))
        super().__init__([LSTMCell(ys, hs, "sigmoid")])


def hidden_states(model: nn.Module) -> list[str]:
    """Where the LSTMs of a network put out h_t: the names of the modules to capture.

    Raises ModelInputError for a network without an LSTM.
    """
    found = [f"{name}.gate" for name, module in model.named_modules() if isinstance(module, StackedLSTM)]
    if found:
        return found
    kinds = Counter(type(module).__name__ for module in model.modules() if isinstance(module, Attention))
    listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    other = f"its attention is {listed}" if kinds else "it has no attention at all"
    name = model.spec.name if isinstance(model, Network) else type(model).__name__
    raise ModelInputError("hidden", f"{name} has no LSTM and so no hidden state; {other}")
