"""Gates as people write them are found by what they do, and what is no attention is not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dia_analysis.probes.gates import find_gates
from dia_analysis.probes.graph import watch
from dia_analysis.probes.weighted_sums import find_weighted_sums

C, SIDE = 8, 6


class Block(nn.Module):
    """A convolution, what `forward` of a subclass does with its output, and a convolution."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Conv2d(3, C, 3, padding=1), nn.Conv2d(C, 4, 1)
        self.down, self.up = nn.Linear(C, 2), nn.Linear(2, C)
        self.squeeze, self.excite = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1)
        self.fc = nn.Sequential(nn.Linear(C, 2), nn.ReLU(), nn.Linear(2, C), nn.Sigmoid())
        self.row = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.one, self.spot, self.pair = nn.Conv2d(C, 1, 1), nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(C, 2 * C, 1)
        self.other_pair, self.depthwise = nn.Conv2d(C, 2 * C, 1), nn.Conv2d(C, C, 3, padding=1, groups=C)
        self.scale, self.norm, self.cell = nn.Parameter(torch.ones(C, 1, 1)), nn.BatchNorm2d(C), nn.LSTMCell(C, C)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.act(self.before(images)))


def pooled(x):
    return F.adaptive_avg_pool2d(x, 1)


def flat(x):
    return pooled(x).view(len(x), C)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def back(y, x):
    return y.transpose(1, 2).reshape(x.shape)


def reshaped(self, x):
    return x * self.fc(flat(x)).view(len(x), C, 1, 1)


def expanded(self, x):
    return x * self.fc(flat(x)).view(len(x), C, 1, 1).expand_as(x)


def without_a_module(self, x):
    return x * self.excite(torch.relu(self.squeeze(pooled(x)))).sigmoid()


def in_place(self, x):
    x = x.clone()
    x *= torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))[:, :, None, None]
    return x


def relu6(self, x):
    return x * (F.relu6(self.excite(F.relu(self.squeeze(pooled(x)))) + 3) / 6)


def over_channels(self, x):
    y = pooled(x)
    return x * self.row(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1).sigmoid().expand_as(x)


def einsum(self, x):
    return torch.einsum("bchw,bc->bchw", x, self.fc(flat(x)))


def of_a_cell_by_hand(self, x):
    h, _ = self.cell(flat(x))
    return x * h.view(len(x), C, 1, 1)


def unsquashed(self, x):
    return x * self.up(torch.relu(self.down(flat(x))))[:, :, None, None]


def of_tokens(self, x):
    t = tokens(x)
    return back(t * self.fc(t.mean(1, keepdim=True)), x)


def channels_last(self, x):
    y = x.permute(0, 2, 3, 1)
    return (y * self.fc(y.mean((1, 2), keepdim=True))).permute(0, 3, 1, 2)


def added_to(self, x):
    return torch.addcmul(x, x, self.fc(flat(x))[:, :, None, None])


def divided(self, x):
    return x / (1 + torch.exp(-self.excite(torch.relu(self.squeeze(pooled(x))))))


def maxed_too(self, x):
    shared = lambda y: self.excite(torch.relu(self.squeeze(y)))  # noqa: E731
    return x * torch.sigmoid(shared(pooled(x)) + shared(F.adaptive_max_pool2d(x, 1)))


def two_in_one(self, x):
    x = reshaped(self, x)
    return x * torch.sigmoid(self.spot(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


def spatial(self, x):
    return x * torch.sigmoid(self.one(x))


def by_groups(self, x):
    y = x.reshape(len(x) * 2, C // 2, SIDE, SIDE)
    score = (y * pooled(y)).sum(1, keepdim=True)
    return (y * torch.sigmoid(score)).reshape(x.shape)


def coordinate(self, x):
    high, wide = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
    y = torch.relu(self.squeeze(torch.cat([high, wide], 2)))
    high, wide = torch.split(y, [SIDE, SIDE], 2)
    return x * self.excite(wide.permute(0, 1, 3, 2)).sigmoid() * self.excite(high).sigmoid()


def coordinate_without_bounds(self, x):
    high, wide = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
    high, wide = torch.split(torch.relu(self.squeeze(torch.cat([high, wide], 2))), [SIDE, SIDE], 2)
    return x * self.excite(high) * self.excite(wide.permute(0, 1, 3, 2))


def gaussian(self, x):
    y = pooled(x)
    y = (y - y.mean(1, keepdim=True)) / torch.sqrt(y.var(1, keepdim=True) + 1e-5)
    return x * torch.exp(-(y**2)).expand_as(x)


def rotated(self, x):
    y = x.permute(0, 2, 1, 3)
    gate = self.spot(torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)).sigmoid()
    return (y * gate).permute(0, 2, 1, 3)


def over_branches(self, x):
    branches = torch.stack([x, self.depthwise(x)], 1)
    z = self.down(flat(branches.sum(1)))
    weights = torch.stack([self.up(z), self.up(z) * 2], 1).softmax(1)
    return (branches * weights[:, :, :, None, None]).sum(1)


def of_every_pixel(self, x):
    return x * self.excite(torch.relu(self.squeeze(x))).sigmoid()


def without_parameters(self, x):
    d = (x - x.mean((2, 3), keepdim=True)).pow(2)
    return x * torch.sigmoid(d / (4 * (d.sum((2, 3), keepdim=True) / (SIDE * SIDE - 1) + 1e-4)) + 0.5)


def with_context(self, x):
    weights = self.one(x).view(len(x), 1, -1).softmax(-1)
    context = torch.bmm(x.flatten(2), weights.transpose(1, 2)).view(len(x), C, 1, 1)
    return x * self.excite(torch.relu(self.squeeze(context))).sigmoid()


FOUND = [
    *((way, ["channel"]) for way in (reshaped, expanded, without_a_module, in_place, relu6, over_channels, einsum)),
    *((way, ["channel"]) for way in (of_a_cell_by_hand, unsquashed, of_tokens, channels_last, added_to, divided)),
    *((way, ["channel"]) for way in (maxed_too, with_context)),
    (two_in_one, ["channel", "spatial"]),
    (spatial, ["spatial"]),
    (by_groups, ["spatial"]),
    (coordinate, ["directional", "directional"]),
    (coordinate_without_bounds, ["directional", "directional"]),
    (gaussian, ["channel"]),
    (rotated, ["directional"]),
    (over_branches, ["branch"]),
    (of_every_pixel, ["map"]),
    (without_parameters, ["map"]),
]


def swish(self, x):
    return x * torch.sigmoid(x)


def swish_of_one_position(self, x):
    y = self.squeeze(pooled(x))
    return x + self.excite(y * torch.sigmoid(1.702 * y))


def hard_swish(self, x):
    return x * F.relu6(x + 3) / 6


def mish_and_gelu(self, x):
    x = x * torch.tanh(F.softplus(x))
    return x * 0.5 * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))


def swish_of_a_norm(self, x):
    return x * torch.sigmoid(self.norm(x))


def layer_scale(self, x):
    return x + self.depthwise(x) * self.scale


def stochastic_depth(self, x):
    return x + self.depthwise(x) * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8).div_(0.8)


def dropout(self, x):
    return F.dropout2d(F.dropout(x, 0.3, True), 0.3, True)


def gated_linear_unit(self, x):
    a, b = self.pair(x).chunk(2, 1)
    return a * torch.sigmoid(b)


def star(self, x):
    y = self.depthwise(x)
    a, b = self.pair(y), self.other_pair(y)
    return (F.relu6(a) * b)[:, :C]


def halves_multiplied(self, x):
    a, b = self.pair(x).chunk(2, 1)
    return a * b


def response_norm(self, x):
    size = x.norm(dim=(2, 3), keepdim=True)
    return self.scale * (x * (size / (size.mean(1, keepdim=True) + 1e-6))) + x


def instance_norm(self, x):
    d = x - x.mean((2, 3), keepdim=True)
    return d / (d.pow(2).mean((2, 3), keepdim=True) + 1e-5).sqrt()


def root_mean_square(self, x):
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * self.scale


def unit_length(self, x):
    return F.normalize(x, dim=1)


def mask(self, x):
    return x * (x > 0) * (x.argmax(1, keepdim=True) > 2).float()


def statistics_of_the_batch(self, x):
    return x * torch.sigmoid(x.mean((0, 2, 3), keepdim=True))


def squashed_parameter(self, x):
    return x * torch.sigmoid(self.scale)


NONE = [
    swish,
    swish_of_one_position,
    hard_swish,
    mish_and_gelu,
    swish_of_a_norm,
    layer_scale,
    stochastic_depth,
    dropout,
]
NONE += [gated_linear_unit, halves_multiplied, response_norm, instance_norm, root_mean_square, unit_length, mask]
NONE += [statistics_of_the_batch, squashed_parameter, star]


def seen(way, images=2):
    block = type("Way", (Block,), {"act": way})().eval()
    with torch.no_grad():
        return watch(block, (torch.randn(images, 3, SIDE, SIDE),))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(("way", "kinds"), FOUND, ids=lambda v: getattr(v, "__name__", ""))
def test_gates_are_found_however_they_are_written(way, kinds, images):
    graph = seen(way, images)
    gates = find_gates(graph)
    assert [gate.kind for gate in gates] == kinds
    assert find_weighted_sums(graph, gates) == []


@pytest.mark.parametrize("way", NONE, ids=lambda way: way.__name__)
def test_what_is_no_attention_is_not_found(way):
    graph = seen(way)
    assert find_gates(graph) == []
    assert find_weighted_sums(graph, []) == []
