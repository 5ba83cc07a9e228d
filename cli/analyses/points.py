"""dia-analyze points: what can be captured of a network."""

from collections.abc import Iterable
from dataclasses import asdict

from cli.common.console import note, show
from cli.common.networks import Candidate
from dia_analysis import Point, find_points
from dia_analysis.probes.example import own_size
from dia_analysis.results.text_table import text_table
from dia_models import ModelInputError

HEADS = ("point", "call", "kind", "shape of a map", "stage", "usable")


def report(candidates: list[Candidate], patterns: Iterable[str] | None, *, as_json: bool) -> None:
    """Run two random images, and print a row for each call, or the JSON document dia.points/1."""
    if len(candidates) > 1:
        raise ModelInputError("model", f"{len(candidates)} networks given; this command takes one")
    network = candidates[0].open()
    size = network.preprocessing.size
    if "image size" in " ".join(network.assumptions()) and own_size(network.model) is None:
        note(f"{network.name}: run on images of {size[0]}x{size[1]} pixels, since nothing says its size")
    found = find_points(network.model, points=list(patterns) if patterns else None, image_size=size)
    rows = [{**asdict(point), "usable": point.usable} for point in found]
    document = {"schema": "dia.points/1", "network": network.name, "image_size": list(size), "points": rows}
    show(as_json, document, lambda: _table(found) if found else _none(network.name))


def _table(found: list[Point]) -> str:
    return text_table([HEADS, *map(_row, found)], left=(0, 2, 3, 5))


def _row(point: Point) -> tuple[str, ...]:
    shape, stage = " x ".join(map(str, point.shape)), "-" if point.stage is None else str(point.stage)
    return point.name, str(point.call), point.kind, shape, stage, point.reason or "yes"


def _none(name: str) -> str:
    return (
        f"{name} uses no attention; --points 'features:PATTERN' takes the outputs of modules, averaged over positions"
    )
