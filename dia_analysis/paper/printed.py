"""The numbers that the paper's tables print."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Printed:
    """An accuracy of the paper, in percent; `accuracy` is None where it prints nan, `std` where it prints none."""

    data: str
    backbone: str
    accuracy: float | None
    std: float | None

    def __str__(self) -> str:
        if self.accuracy is None:
            return "nan"
        return f"{self.accuracy:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")


def paper_accuracy(sweep: str, data: str, backbone: str, variant: str | None) -> Printed | None:
    """What the paper prints for a variant: of the same data and backbone, else the first of the same data, else of its
    table.
    """
    table = _tables().get(sweep, {})
    same = [place for place in table if place[0] == data]
    place = (data, backbone) if (data, backbone) in table else next(iter([*same, *table]), None)
    return None if place is None or variant is None else table[place].get(variant)


def paper_data(sweep: str) -> tuple[str, ...]:
    """The data sets of the paper's table, none where it prints no numbers."""
    return tuple(dict.fromkeys(data for data, _ in _tables().get(sweep, {})))


@cache
def _tables() -> Mapping[str, Mapping[tuple[str, str], Mapping[str, Printed]]]:
    text = (files("dia_analysis.paper") / "accuracies.json").read_text(encoding="utf-8")
    tables: dict[str, dict[tuple[str, str], dict[str, Printed]]] = {}
    for row in json.loads(text):
        place = (row["data"], row["backbone"])
        found = Printed(*place, row["accuracy"], row["std"])
        tables.setdefault(row["sweep"], {}).setdefault(place, {})[row["variant"]] = found
    return tables
