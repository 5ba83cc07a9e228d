"""The line that says not to rely on maps: planted failures bring it out, sound and undecided checks do not."""

from dataclasses import replace

import numpy as np
import pytest

from dia_analysis import TrustChecks, check_randomization, check_road, gradcam, measure_agreement
from dia_analysis.trust.checks import TrustReport, warnings
from tests.support.heatmaps import Finder, edges, maps, patches, take_maps


@pytest.fixture(scope="module")
def sound():
    images, where = patches()
    return TrustChecks(
        "net",
        check_randomization(Finder(), images, target=1, steps=3, draws=8),
        check_road(Finder(), images, maps=where, target=1),
    )


def test_sound_maps_bring_no_warning(sound):
    assert sound.randomization.depends_on_weights is True
    assert sound.road.better_than_random is True
    assert sound.failures() == []
    assert warnings([sound], []) == []


def test_an_edge_detector_is_warned_of(sound):
    images, _ = patches()
    planted = replace(sound, randomization=check_randomization(Finder(), images, target=1, explain=edges, steps=3))
    (line,) = warnings([planted], [])
    assert line == (
        "warning: do not rely on the maps of net: they stay the same when the weights are destroyed."
    )  # fmt: skip


def test_maps_of_the_wrong_place_are_warned_of(sound):
    images, where = patches()
    elsewhere = check_road(Finder(), images, maps=np.roll(where, (10, 10), (1, 2)), target=1)
    assert elsewhere.better_than_random is False
    (line,) = warnings([replace(sound, road=elsewhere)], [])
    assert "masking the highlighted pixels hurts no more than masking others" in line


def test_what_is_undecided_fails_nothing(sound):
    road = sound.road
    alone = replace(road, morf=road.morf[:1], lerf=road.lerf[:1], random=road.random[:, :1])
    assert alone.better_than_random is None  # one image, better than random: there is no telling by how much
    nothing = replace(road, **{key: np.full_like(getattr(road, key), np.nan) for key in ("morf", "lerf", "random")})
    assert nothing.better_than_random is None
    found = sound.randomization
    one = replace(found, spearman=found.spearman[:1, :, :1], ssim=found.ssim[:1, :, :1])
    undecided = TrustChecks("net", one, alone)
    assert one.depends_on_weights is None
    assert warnings([undecided], []) == []


def test_the_score_that_decides_by_hand(sound):
    """(LeRF - MoRF) / 2 is 0.1 for both images: above zero with no spread. The first step removes nothing."""
    planted = replace(
        sound.road,
        morf=np.array([[1.0, 0.7, 0.5], [1.0, 0.6, 0.6]]),
        lerf=np.array([[1.0, 0.9, 0.7], [1.0, 0.8, 0.8]]),
        random=np.array([[[1.0, 0.9, 0.7], [1.0, 0.5, 0.7]]]),
    )
    np.testing.assert_allclose(planted.score, [0.1, 0.1])
    np.testing.assert_allclose(planted.morf_gain, [0.2, 0])
    np.testing.assert_allclose(planted.lerf_gain, [0, 0.2])
    assert planted.better_than_random is True
    worse = replace(planted, morf=planted.lerf, lerf=planted.morf)
    assert worse.better_than_random is False
    mixed = replace(planted, morf=np.array([[1.0, 0.1, 0.1], [1.0, 0.9, 0.9]]))
    assert mixed.better_than_random is None  # 0.35 and -0.05: above zero on average, but not surely


def test_every_network_is_told_passed_failed_or_uncertain(sound):
    assert sound.passed
    assert sound.summary().splitlines()[-1].startswith("Passed: the maps change when the weights are destroyed")
    assert sound.to_dict()["passed"] is True
    worse = replace(sound, road=replace(sound.road, morf=sound.road.lerf, lerf=sound.road.morf))
    assert (worse.passed, worse.verdict()) == (
        False,
        "Failed: masking the highlighted pixels hurts no more than masking others.",
    )
    halves = np.where(np.arange(sound.road.morf.shape[0]) % 2, 1, -1)[:, None] * 0.1 + 0.01
    mixed = replace(sound, road=replace(sound.road, lerf=sound.road.morf + halves))
    assert mixed.road.better_than_random is None
    assert mixed.verdict() == "Uncertain: removed evidence. Passed: destroyed weights. More images may decide it."


def test_runs_that_look_at_different_things_are_warned_of(sound):
    images, _ = patches()
    one = gradcam(Finder(), images, target=1, model_name="a")
    assert measure_agreement([one, one]).agrees is True
    apart = measure_agreement([take_maps(one, maps(6, 20, 20, seed=s), f"run {s}") for s in range(2)])
    assert apart.agrees is False
    (line,) = warnings([sound], [apart])
    assert line.startswith("warning: do not rely on the maps of run 0, run 1: runs of one network look at different")
    never = measure_agreement([one, gradcam(Finder(), images, target=0, model_name="b")])
    assert never.agrees is None
    assert warnings([sound], [never]) == []


def test_maps_that_are_all_alike_do_not_agree_for_a_reason():
    """Whoever always looks at the same place agrees with everyone, on every image."""
    images, _ = patches()
    same = maps(1, 20, 20).repeat(6, 0)
    one = gradcam(Finder(), images, target=1, model_name="a")
    found = measure_agreement([take_maps(one, same, name) for name in "ab"])
    assert found.to_dict()["spearman"] == pytest.approx(1)
    assert found.agrees is False


def test_the_commands_end_in_the_warning(sound):
    images, _ = patches()
    planted = replace(sound, randomization=check_randomization(Finder(), images, target=1, explain=edges, steps=3))
    trust = TrustReport(6, (sound, planted), ())
    assert trust.summary().splitlines()[-1].startswith("warning: do not rely on the maps of net: they stay the same")
    document = trust.to_dict()
    assert len(document["warnings"]) == 1
    assert [model["failures"] == [] for model in document["models"]] == [True, False]
    assert "warning" not in TrustReport(6, (sound,), ()).summary()
