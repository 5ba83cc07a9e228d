"""Layers and attention modules written plainly over the weights of a state dict."""

import torch
import torch.nn.functional as F


def norm(x, w, prefix):
    mean, variance = w[f"{prefix}.running_mean"], w[f"{prefix}.running_var"]
    x = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
    return x * w[f"{prefix}.weight"].view(1, -1, 1, 1) + w[f"{prefix}.bias"].view(1, -1, 1, 1)


def linear(x, w, prefix):
    return x @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]


def se(y, w, prefix, state):
    return torch.sigmoid(linear(torch.relu(linear(y, w, f"{prefix}.excitation.0")), w, f"{prefix}.excitation.2")), state


def eca(y, w, prefix, state):
    kernel = w[f"{prefix}.conv.weight"][0, 0]
    reach = len(kernel) // 2
    padded = F.pad(y, (reach, reach))
    gate = sum(k * padded[:, i : i + y.shape[1]] for i, k in enumerate(kernel))
    return torch.sigmoid(gate), state


def dia_lstm(y, w, prefix, state):
    n = y.shape[1]
    h, c = (torch.zeros_like(y), torch.zeros_like(y)) if state is None else state
    pre = {}
    for source, name in ((y, "input_gates"), (h, "hidden_gates")):
        reduced = torch.relu(linear(source, w, f"{prefix}.cells.0.{name}.0"))
        weight, bias = w[f"{prefix}.cells.0.{name}.2.weight"], w[f"{prefix}.cells.0.{name}.2.bias"]
        for k, gate in enumerate("ifgo"):
            rows = slice(k * n, (k + 1) * n)
            pre[gate] = pre.get(gate, 0) + reduced @ weight[rows].T + bias[rows]
    c = torch.sigmoid(pre["f"]) * c + torch.sigmoid(pre["i"]) * torch.tanh(pre["g"])
    h = torch.sigmoid(pre["o"]) * torch.sigmoid(c)
    return h, (h, c)
