"""What DIA-LSTM and capture cost: `python -m benchmarks.attention_speed`.

ResNet164, batch 32, CPU, evaluation; each network in the memory format in which it is faster.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved
from dia_analysis import capture
from dia_models import create_model
from dia_models.allocator import keep_freed_memory
from dia_models.attention.dia_lstm import DIALSTM

FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


class Straightforward(nn.Module):
    """DIA-LSTM as one writes it first: pool, gates one by one, multiply, add, over the weights of ours."""

    def __init__(self, ours: DIALSTM):
        super().__init__()
        self.cell = ours.cells[0]
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, branch: Tensor, shortcut: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, object]:
        """One layer."""
        y = self.pool(branch).flatten(1)
        h, c = (torch.zeros_like(y), torch.zeros_like(y)) if state is None else state
        gates = self.cell.input_gates(y) + self.cell.hidden_gates(h)
        i, f, g, o = gates.chunk(4, 1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        h = o * torch.sigmoid(c)
        branch = branch * h.view(h.shape[0], h.shape[1], 1, 1)
        branch += shortcut
        return branch, (h, c)


def straightforward(model: nn.Module) -> nn.Module:
    """Put the straightforward module in place of ours, with the same weights."""
    for stage in model.stages:
        stage.attention = Straightforward(stage.attention)
    return model


def main() -> None:
    """Print the ratios beside what is promised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    torch.manual_seed(0)
    images = torch.randn(32, 3, 32, 32)
    plain, lstm, light = (create_model(f"cifar_resnet164{a}").eval() for a in ("", "_dia_lstm", "_dia_lstm_light"))
    slow = straightforward(create_model("cifar_resnet164_dia_lstm")).eval()
    models = {"plain": plain, "DIA-LSTM": lstm, "Light": light, "straightforward": slow}
    medians: dict[str, dict[str, float]] = {}
    for name, memory in FORMATS.items():
        inputs = images.to(memory_format=memory)
        for model in models.values():
            model.to(memory_format=memory)
        with torch.inference_mode():
            functions: dict[str, Callable[[], object]] = {k: partial(model, inputs) for k, model in models.items()}
            functions["captured"] = partial(captured, lstm, inputs)
            medians[name] = interleaved(functions, rounds)
        print(name, {key: f"{1000 * value:.1f} ms" for key, value in medians[name].items()})
    best = {key: min(m[key] for m in medians.values()) for key in medians["NCHW"]}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ratios of medians of {rounds} rounds")
    print(f"DIA-LSTM / plain           {best['DIA-LSTM'] / best['plain']:.3f}  promised 1.06")
    print(f"Light / plain              {best['Light'] / best['plain']:.3f}  promised 1.03")
    print(f"DIA-LSTM / straightforward {best['DIA-LSTM'] / best['straightforward']:.3f}  promised 0.67")
    print(f"captured / not captured    {best['captured'] / best['DIA-LSTM']:.3f}  promised 1.03")


def captured(model: nn.Module, inputs: Tensor) -> None:
    """One forward pass whose attention maps are recorded."""
    with capture(model):
        model(inputs)


if __name__ == "__main__":
    main()
