"""The parts of r in tables and sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dia_analysis.correlation.nulls import Chance
from dia_analysis.correlation.readings import HeadLikeness, StageReadings
from dia_analysis.results.text_table import text_table
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.statistics.pearson import STRONG
from dia_analysis.statistics.summary import mean

if TYPE_CHECKING:
    from dia_analysis.correlation.results import CorrelationResult, StageCorrelation

SHOWN_DISTANCES = 8
SMALL = 0.1  # a mean r of deviations below which layers are not alike channel by channel
NAMED = 3  # channels named in a sentence
NOT_AGAIN = (
    "The maps take more than 1 GiB and the images cannot be shown again, so r is all that is known; give them as a "
    "list or a DataLoader."
)
LIKENESS = {
    "pooled_r": "pooled r",
    "r_from_static": "= static",
    "r_from_image": "+ by image",
    "mean_r_static": "r of means",
    "mean_r_other_image": "other image",
    "mean_r_image": "r of dev.",
    "mean_r_channel": "by channel",
    "mean_abs_r_channel": "|r|",
    "cka": "CKA",
    "cka_without_gain": "no gain",
}
SPREAD = {"channel_std": "SD", "channel_std_over_mean": "SD / mean", "channel_std_of_logit": "SD of logit"}
SHARES = {"channel_share": "static", "gain_share": "gain", "image_share": "by image", "static_share": "static, no gain"}


def tables(result: "CorrelationResult") -> list[str]:
    """The parts of r and the shares of variance of each stage, and sentences; none where they were not measured."""
    stages = [(stage, stage.readings) for stage in result.stages if stage.readings is not None]
    paired = [(stage, readings) for stage, readings in stages if len(stage.layers) > 1]
    if not stages:
        return [NOT_AGAIN]
    parts = [_rows(stage, readings) for stage, readings in paired]
    likeness = [text_table([("stage", "", *LIKENESS.values()), *(row for rows in parts for row in rows)], left=[1])]
    shares = [
        ("stage", *SHARES.values(), *SPREAD.values()),
        *(_share_row(stage, readings) for stage, readings in stages),
    ]
    return [
        *(["", "Parts of r, with 95 % intervals for other images:", *likeness] if paired else []),
        *["", "Shares of the maps' variance; standard deviation over images, median channel; mean over layers:"],
        text_table(shares),
        *_similarities(paired),
        *_heads(paired),
        *_distances(paired),
        *(sentence for stage, readings in stages for sentence in sentences(stage, readings)),
    ]


def _similarities(stages: "Sequence[tuple[StageCorrelation, StageReadings]]") -> list[str]:
    """The likenesses asked for besides r and CKA."""
    rows = [
        (str(stage.stage), name, _interval(found.mean), number(found.other_image.value), _range(found.null))
        for stage, readings in stages
        for name, found in readings.similarities.items()
    ]
    heads = ("stage", "similarity", "mean [95 %]", "other image", "channels permuted")
    return ["", "Other similarities:", text_table([heads, *rows], left=[1])] if rows else []


def _heads(stages: "Sequence[tuple[StageCorrelation, StageReadings]]") -> list[str]:
    """Heads of self-attention, which have no order: matched, as numbered, in random order."""
    matched = [(stage, readings.heads) for stage, readings in stages if readings.heads is not None]
    rows = [
        (str(stage.stage), name, *_of_heads(found))
        for stage, heads in matched
        for name, found in heads.readings.items()
    ]
    if not rows:
        return []
    numbered = any(readings.by_index for _, readings in stages)
    above = (
        "All other tables compare head 1 with head 1 and so on" if numbered else "All other tables are of their mean"
    )
    fit, judged = matched[0][1].fit_images, matched[0][1].images
    columns = ("stage", "", "matched [95 %]", "by number [95 %]", "other image", "random order")
    title = f"Heads have no order. {above}. Here they are matched on {fit} images and judged on {judged} others:"
    return ["", title, text_table([columns, *rows], left=[1])]


def _distances(stages: "Sequence[tuple[StageCorrelation, StageReadings]]") -> list[str]:
    """Mean r by the distance between two layers, where there is more than one."""
    profiles = [(str(s.stage), readings.distances.means["mean_r"]) for s, readings in stages if s.comparable]
    longest = min(max((len(means) for _, means in profiles), default=0), SHOWN_DISTANCES)
    if longest < 2:
        return []
    rows = [
        (name, *(number(means[i].value) if i < len(means) else "" for i in range(longest))) for name, means in profiles
    ]
    return [
        "",
        "Mean r by the distance between two layers:",
        text_table([("stage", *map(str, range(1, longest + 1))), *rows]),
    ]


def _interval(found: Estimate) -> str:
    ends = f" [{number(found.low)}, {number(found.high)}]" if found.has_interval else ""
    return f"{number(found.value)}{ends}"


def _of_heads(found: HeadLikeness) -> tuple[str, ...]:
    other = "-" if found.other_image is None else number(found.other_image)
    return _interval(found.mean), _interval(found.by_index), other, _range(found.null)


def _range(chance: Chance | None) -> str:
    return "-" if chance is None else f"{chance.low:z.2f} to {chance.high:z.2f}"


def sentences(stage: "StageCorrelation", readings: StageReadings) -> list[str]:
    """What is to be said of a stage: what its likeness is made of, and what was left out."""
    found = [*_static(readings), *_image_dependent(readings)] if stage.comparable else []
    return [*([f"Stage {stage.stage}: {' '.join(found)}"] if found else []), *_left_out(stage, readings)]


def _static(readings: StageReadings) -> list[str]:
    r, other = (readings.numbers[name].value for name in ("mean_r", "mean_r_other_image"))
    if np.isnan([r, other]).any():
        return []
    if not _beyond(readings, "mean_r") and "mean_r" in readings.null.chances:
        return [f"r {r:z.2f} is no more than channels in another order give{_chance(readings, 'mean_r')}."]
    return [f"of r {r:z.2f}, {other:z.2f} remains when the second map is another image's."]


def _image_dependent(readings: StageReadings) -> list[str]:
    """The three readings of image-dependent likeness, always together."""
    names = ("mean_r_image", "mean_abs_r_channel", "cka")
    if not all(name in readings.numbers for name in names):
        return []
    r, absolute, cka = (readings.numbers[name].value for name in names)
    if np.isnan([r, absolute]).all():
        return ["The maps differ between images by no more than rounding."]
    text = (
        f"What depends on the image: r of deviations {number(r)}{_chance(readings, 'mean_r_image')}, mean |r| by "
        f"channel {number(absolute)}{_chance(readings, 'mean_abs_r_channel')}, CKA {number(cka)}"
        f"{_chance(readings, 'cka')}: {_reading(readings)}."
    )
    return [text]


def _reading(readings: StageReadings) -> str:
    """What the three say together."""
    if readings.rounded():
        return "inconclusive, as rounding may explain it"
    r = readings.numbers["mean_r_image"].value
    if np.isfinite(r) and abs(r) >= SMALL and _beyond(readings, "mean_r_image"):
        if r < 0:
            return "opposed channel by channel"
        return f"{'strongly' if r > STRONG else 'partly'} alike channel by channel"
    related = [name for name in ("mean_abs_r_channel", "cka") if _beyond(readings, name)]
    if related:
        return "not alike channel by channel, yet related"
    return "unrelated" if _has_chances(readings) else "not alike channel by channel"


def _beyond(readings: StageReadings, name: str) -> bool:
    """Whether a number lies outside of what it is by chance; false where that is not known."""
    chance, value = readings.null.chances.get(name), readings.numbers[name].value
    return chance is not None and not np.isnan(value) and not chance.low <= value <= chance.high


def _has_chances(readings: StageReadings) -> bool:
    return all(
        name in readings.null.chances and not np.isnan(readings.numbers[name].value)
        for name in ("mean_abs_r_channel", "cka")
    )


def _chance(readings: StageReadings, name: str) -> str:
    chance = readings.null.chances.get(name)
    if chance is None:
        return ""
    digits = 2 if max(abs(chance.low), abs(chance.high)) >= 0.01 else 3
    return f" (by chance {chance.low:z.{digits}f} to {chance.high:z.{digits}f})"


def _left_out(stage: "StageCorrelation", readings: StageReadings) -> list[str]:
    """Sentences on what is constant or rounded, by layer."""
    found = []
    constant = [(layer, some) for layer, some in enumerate(readings.constant_channels(), 1) if some]
    if readings.images == 1:
        found.append(f"Stage {stage.stage}: one image, so nothing shows how the maps depend on the image.")
    elif constant:
        found.append(
            f"Stage {stage.stage}: {'; '.join(_constant(stage, readings, *each) for each in constant[:NAMED])}"
            f"{_more(len(constant) - NAMED)}; left out."
        )
    if rounded := readings.rounded():
        found.append(
            f"Stage {stage.stage}: rounding explains more than 10 % of how the maps of layers "
            f"{', '.join(map(str, rounded))} depend on the image, so their parts are inconclusive."
        )
    return found


def _constant(stage: "StageCorrelation", readings: StageReadings, layer: int, channels: list[int]) -> str:
    values, count = readings.mean_map[layer - 1][channels], len(channels)
    what = {"channel": "channels", "spatial": "positions"}.get(stage.kind, "elements")
    shown = ", ".join(str(channel + 1) for channel in channels[:NAMED]) + (", ..." if count > NAMED else "")
    saturated = int(((values <= 0) | (values >= 1)).sum())
    text = f"{count} of {stage.channels} {what} of layer {layer} ({shown}) are the same for every image"
    return f"{text}, {saturated} of them saturated" if saturated else text


def _more(count: int) -> str:
    return f"; and in {count} more layers" if count > 0 else ""


def _rows(stage: "StageCorrelation", readings: StageReadings) -> list[tuple[str, ...]]:
    """The numbers, and below them their intervals."""
    numbers = [readings.numbers.get(name) for name in LIKENESS]
    rows = [(str(stage.stage), "", *("-" if each is None else number(each.value) for each in numbers))]
    if any(each is not None and each.has_interval for each in numbers):
        rows += [("", end, *(_end(each, end) for each in numbers)) for end in ("low", "high")]
    return rows


def _end(estimate: Estimate | None, end: str) -> str:
    return "" if estimate is None or not estimate.has_interval else number(getattr(estimate, end))


def _share_row(stage: "StageCorrelation", readings: StageReadings) -> tuple[str, ...]:
    spread = readings.spread()
    shares = (number(readings.numbers[name].value) for name in SHARES)
    return (str(stage.stage), *shares, *(_small(mean([x for x in spread[name] if x is not None])) for name in SPREAD))


def _small(value: float | None) -> str:
    """Two digits that count, as standard deviations are small, or a dash."""
    return "-" if value is None else f"{value:.2g}"


def number(value: float) -> str:
    """Two digits, or a dash."""
    return "-" if np.isnan(value) else f"{value:z.2f}"
