"""Where channel numbers have no common meaning r is undefined, and CKA is left."""

import numpy as np
import pytest
import torch
from torch import nn

from dia_analysis import ImageList, measure_correlation, write_store
from dia_analysis.paper.correlation import CorrelationComparison
from dia_analysis.paper.measure_untrained import measure_beside_untrained
from figures import correlation_figures


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return x * self.layer(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Block(nn.Module):
    """A gate whose features go into a sum with the shortcut as they are, or are mixed before."""

    def __init__(self, mixed, gate=None):
        super().__init__()
        self.before, self.gate = nn.Conv2d(4, 4, 1), gate or Gate()
        self.after = nn.Conv2d(4, 4, 1) if mixed else nn.Identity()

    def forward(self, x):
        return x + self.after(self.gate(self.before(x)))


def stage_of(*mixed, gate=None, patterns=None):
    torch.manual_seed(0)
    model = nn.Sequential(*[Block(each, gate) for each in mixed])
    [stage] = measure_correlation(model, [torch.randn(12, 4, 3, 3)], points=patterns).stages
    return stage


def test_gates_before_one_shortcut_are_compared():
    stage = stage_of(False, False, False)
    assert stage.aligned.all()
    assert stage.to_dict()["aligned"] == [[True] * 3] * 3
    assert np.isfinite(stage.matrix).all()


def test_gates_inside_blocks_have_no_r_but_cka():
    stage = stage_of(True, True, True)
    assert np.array_equal(stage.aligned, np.eye(3, dtype=bool))
    assert (stage.mean_r, stage.std_r, stage.median_r, stage.share_above_0_8) == (None,) * 4
    assert np.isnan(stage.matrix[~stage.aligned]).all()
    assert np.isnan(stage.readings.numbers["pooled_r"].value)
    assert np.isfinite(stage.readings.numbers["cka"].value)
    assert np.isfinite(stage.readings.numbers["channel_share"].value)


def test_of_both_kinds_only_the_aligned_pairs_count():
    every, some = stage_of(False, False, False), stage_of(False, True, False)
    assert some.aligned.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert some.mean_r == pytest.approx(some.matrix[0, 2], abs=1e-12)
    assert some.std_r is None
    assert every.std_r is not None


def test_one_shared_module_is_aligned_wherever_it_is_called():
    assert stage_of(True, True, gate=Gate()).aligned.all()


def test_what_the_user_names_is_not_judged():
    assert stage_of(True, True, patterns="features:*.before").aligned is None


def test_modules_named_by_hand_are_not_judged_even_where_a_network_has_no_attention():
    class Named(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.pools = nn.ModuleList([Named(), Named()])

        def forward(self, x):
            return self.pools[0](x) + self.pools[1](x.square())

    [stage] = measure_correlation(Network(), [torch.randn(12, 4, 3, 3)], points="pools.*").stages
    assert stage.aligned is None
    assert stage.mean_r is not None


def test_what_is_known_of_a_network_built_alike_is_not_found_out_again():
    torch.manual_seed(0)
    first, second = (nn.Sequential(Block(True), Block(True)).eval() for _ in range(2))
    images, passes = [torch.randn(12, 4, 3, 3)], []
    found = measure_correlation(first, images)
    second.register_forward_hook(lambda *_: passes.append(1))
    taken_over, one = measure_correlation(second, images, like=found), len(passes)
    asked = measure_correlation(second, images)
    assert taken_over.to_dict() == asked.to_dict()
    assert len(passes) - one > one


def test_a_store_keeps_which_layers_are_compared(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(Block(False), Block(True), Block(False)).eval()
    images = torch.randn(12, 4, 3, 3)
    store = write_store(
        tmp_path / "s.zarr", model, lambda rows: [(images[rows], rows)], ImageList(tuple(map(str, range(12))))
    )
    [kept], [found] = (result.stages for result in (measure_correlation(store), measure_correlation(model, [images])))
    assert kept.aligned.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert kept.to_dict() == found.to_dict()


def test_the_summary_says_so():
    torch.manual_seed(0)
    result = measure_correlation(nn.Sequential(Block(True), Block(True)), [torch.randn(12, 4, 3, 3)])
    assert "r of its layers is undefined: channel numbers have no common meaning" in result.summary()
    assert result.mean_r is None
    assert "mean_r" not in result.numbers


def outcome_of(*mixed):
    torch.manual_seed(0)
    model, images = nn.Sequential(*[Block(each) for each in mixed]), torch.randn(12, 4, 3, 3)
    return measure_beside_untrained(model, lambda _: [(images, torch.zeros(12, dtype=torch.int64))])


def test_without_comparable_layers_only_what_needs_no_r_is_drawn_and_the_finding_says_why():
    outcome = outcome_of(True, True, True)
    assert set(correlation_figures(CorrelationComparison({"network": outcome}))) == {"fig2d-parts", "stripes"}
    finding = outcome.finding()
    assert (finding.ours, finding.reason) == ("no number", "channel numbers have no common meaning")
    assert not outcome.trained.stages[0].histogram.any()


def test_where_some_pairs_are_comparable_their_matrix_is_drawn_and_no_distribution():
    drawn = correlation_figures(CorrelationComparison({"network": outcome_of(False, True, False)}))
    assert set(drawn) == {"fig2-matrices", "fig2d-parts", "stripes"}
