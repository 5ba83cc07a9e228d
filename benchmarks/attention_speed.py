"""What DIA-LSTM costs, and what writing it well saves: `python -m benchmarks.attention_speed`.

ResNet164, batch 32, CPU; each network in the memory format in which it is faster.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved
from dia_models import create_model, fuse_for_inference
from dia_models.training.device import keep_freed_memory

BATCH = 32
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


class StraightforwardBlock(nn.Module):
    """A block as one writes it first: pool, gates one by one, multiply, add, ReLU."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.branch, self.shortcut = block.branch, block.shortcut
        self.pool, self.relu = nn.AdaptiveAvgPool2d(1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor, attention: nn.Module | None, state: object) -> tuple[Tensor, object]:
        """One block, with or without its layer of attention."""
        branch = self.branch(x)
        if attention is not None:
            h, c = self.step(attention.cells[0], self.pool(branch).flatten(1), state)
            branch, state = branch * h.view(h.shape[0], h.shape[1], 1, 1), (h, c)
        branch += self.shortcut(x)
        return self.relu(branch), state

    def step(self, cell: nn.Module, y: Tensor, state: object) -> tuple[Tensor, Tensor]:
        """The LSTM's step."""
        h, c = (torch.zeros_like(y), torch.zeros_like(y)) if state is None else state
        i, f, g, o = (cell.input_gates(y) + cell.hidden_gates(h)).chunk(4, 1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        return o * torch.sigmoid(c), c


def straightforward(name: str) -> nn.Module:
    """The network `name` with the same weights (seed 0), written straightforwardly."""
    model = seeded(name)
    for stage in model.stages:
        stage.blocks = nn.ModuleList(map(StraightforwardBlock, stage.blocks))
    return model


def with_constant_gates(model: nn.Module) -> nn.Module:
    """The network without what computes its gates: they are the same at every layer."""
    for stage in model.stages:
        gate = torch.full((BATCH, stage.attention.cells[0].input_gates[0].in_features), 0.5)
        stage.attention.process = lambda extracted, state, gate=gate: (gate, True)
    return model


def seeded(name: str) -> nn.Module:
    """A network of fixed weights."""
    torch.manual_seed(0)
    return create_model(name)


def main() -> None:
    """Print the ratios beside what is promised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    lstm = "cifar_resnet164_dia_lstm"
    models = {
        "plain": seeded("cifar_resnet164"),
        "DIA-LSTM": seeded(lstm),
        "Light": seeded(f"{lstm}_light"),
        "constant gates": with_constant_gates(seeded(lstm)),
        "straightforward plain": straightforward("cifar_resnet164"),
        "straightforward": straightforward(lstm),
    }
    models |= {f"fused {name}": fuse_for_inference(models[name]) for name in ("plain", "DIA-LSTM")}
    for model in models.values():
        model.eval()
    with torch.no_grad():
        torch.testing.assert_close(models["DIA-LSTM"](images), models["straightforward"](images), rtol=1e-4, atol=1e-4)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {rounds} rounds")
    with torch.no_grad():
        t = best(models, images, rounds, forward)
    ratio("DIA-LSTM / plain", t["DIA-LSTM"], t["plain"], 1.06)
    ratio("DIA-LSTM / plain, written straightforwardly", t["DIA-LSTM"], t["straightforward plain"], None)
    ratio("Light / plain", t["Light"], t["plain"], 1.03)
    ratio("Light / plain, written straightforwardly", t["Light"], t["straightforward plain"], None)
    ratio("DIA-LSTM / straightforward", t["DIA-LSTM"], t["straightforward"], 0.9)
    ratio("fused plain / plain", t["fused plain"], t["plain"], None)
    ratio("fused DIA-LSTM / DIA-LSTM", t["fused DIA-LSTM"], t["DIA-LSTM"], None)
    ratio("fused DIA-LSTM / fused plain", t["fused DIA-LSTM"], t["fused plain"], None)
    ratio("fused DIA-LSTM / straightforward", t["fused DIA-LSTM"], t["straightforward"], 0.9)
    ratio("plain / plain, written straightforwardly", t["plain"], t["straightforward plain"], None)
    share("of which the gates multiply the features", t["constant gates"] - t["plain"], t["plain"])
    share("of which the LSTM computes the gates", t["DIA-LSTM"] - t["constant gates"], t["plain"])
    trained = {name: models[name] for name in ("plain", "DIA-LSTM", "straightforward")}
    t = best(trained, images, max(rounds // 3, 3), training_step)
    ratio("training step, DIA-LSTM / straightforward", t["DIA-LSTM"], t["straightforward"], 0.8)
    ratio("training step, if attention cost nothing", t["plain"], t["straightforward"], None)


def best(
    models: dict[str, nn.Module], images: Tensor, rounds: int, run: Callable[[nn.Module, Tensor], None]
) -> dict[str, float]:
    """Median seconds of every network, in the better of the two memory formats."""
    medians = []
    for name, memory in FORMATS.items():
        inputs = images.to(memory_format=memory)
        for model in models.values():
            model.to(memory_format=memory)
        medians.append(interleaved({key: partial(run, model, inputs) for key, model in models.items()}, rounds))
        print(name, {key: f"{1000 * value:.0f} ms" for key, value in medians[-1].items()})
    return {key: min(m[key] for m in medians) for key in models}


def forward(model: nn.Module, images: Tensor) -> None:
    """One forward pass."""
    model(images)


def training_step(model: nn.Module, images: Tensor) -> None:
    """Forward and backward in training mode."""
    model.train()
    model.zero_grad()
    model(images).logsumexp(1).mean().backward()


def share(what: str, seconds: float, plain: float) -> None:
    """Print a part of the time that attention adds, as a share of the plain network's."""
    print(f"  {what:<44} {seconds / plain:+.3f}")


def ratio(what: str, ours: float, theirs: float, promised: float | None) -> None:
    """Print a ratio and what was promised."""
    print(f"{what:<46} {ours / theirs:.3f}" + (f"  promised {promised}" if promised else ""))


if __name__ == "__main__":
    main()
