"""DIA-LSTM: one recurrent cell per stage, running along depth (section III-B of the paper)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention
from dia_models.attention.registry import check_reduction, register

State = tuple[Tensor, Tensor]


def _gates(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 4 * channels))


@register("dia_lstm", always_shared=True)
class DIALSTM(ChannelAttention):
    """The modified LSTM cell of Fig. 6 (middle); its hidden state h_t is the gate.

    With y the channel means and h, c the previous states (zero at a stage's start):
    i, f, g, o = gates(y) + gates(h);  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) σ(c').
    10N²/r + 2N/r + 8N parameters. The cell state passes through the probe point `cell_state`.
    """

    def __init__(self, channels: int, *, reduction: int = 4):
        super().__init__()
        hidden = check_reduction(reduction, channels)
        self.input_gates = _gates(channels, hidden)
        self.hidden_gates = _gates(channels, hidden)
        self.cell_state = nn.Identity()

    def attend(self, pooled: Float[Tensor, "batch channel"], state: State | None) -> tuple[Tensor, State]:
        """Advance the cell by one layer."""
        if state is None:  # h = 0 is the same for every image: one row, broadcast
            hidden, cell = pooled.new_zeros(1, pooled.shape[1]), None
        else:
            hidden, cell = state
        i, f, g, o = (self.input_gates(pooled) + self.hidden_gates(hidden)).chunk(4, dim=1)
        update = i.sigmoid() * g.tanh()
        cell = update if cell is None else torch.addcmul(update, f.sigmoid(), cell)
        cell = self.cell_state(cell)
        hidden = o.sigmoid() * cell.sigmoid()
        return hidden, (hidden, cell)
