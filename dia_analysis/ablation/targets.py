"""Which layers' maps are replaced together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dia_analysis.ablation.running import Layer
from dia_analysis.errors import AnalysisInputError

Effect = Literal["total", "direct"]
ACCEPTED = "'all', a stage such as '2', a layer such as '2.3' (stage 2, layer 3), or 'each' for each layer by itself"


@dataclass(frozen=True)
class Target:
    """Layers, counted in forward order from 0, whose maps are replaced together; `stage` is None if it is of all.

    Of the total effect, later maps are recomputed from what the network then sees; of the direct one they stay as in
    the untouched network.
    """

    stage: int | None
    layers: tuple[int, ...]
    effect: Effect = "total"


def choose_targets(layers: Sequence[Layer], names: Sequence[str] | None, *, freeze_others: bool) -> list[Target]:
    """The targets that the names stand for, by default each stage and all; single layers have both effects.

    Raises AnalysisInputError for a name that stands for nothing.
    """
    stages = max(layer.stage for layer in layers)
    if names is None:
        names = [*map(str, range(1, stages + 1)), *(["all"] if stages > 1 else [])]
    found = [target for name in names for target in _named(layers, name.strip(), freeze_others)]
    if not found:
        raise AnalysisInputError("layers", f"nothing given; give {ACCEPTED}")
    return list(dict.fromkeys(found))


def _named(layers: Sequence[Layer], name: str, freeze_others: bool) -> list[Target]:
    effect: Effect = "direct" if freeze_others else "total"
    if name == "all":
        return [Target(None, tuple(range(len(layers))))]  # no other is left to be frozen
    if name == "each":
        return [target for index in range(len(layers)) for target in _both(layers, index)]
    stage, dot, number = name.partition(".")
    of_stage = tuple(i for i, layer in enumerate(layers) if str(layer.stage) == stage)
    if dot:
        one = [i for i in of_stage if str(layers[i].number) == number]
        if one:
            return _both(layers, one[0])
    elif of_stage:
        return [Target(int(stage), of_stage, effect)]
    counts = Counter(layer.stage for layer in layers)
    sizes = ", ".join(f"{stage} ({count})" for stage, count in counts.items())
    raise AnalysisInputError(
        "layers", f"{name!r} given; the stages, and how many layers each has, are {sizes}; give {ACCEPTED}"
    )


def _both(layers: Sequence[Layer], index: int) -> list[Target]:
    return [Target(layers[index].stage, (index,), effect) for effect in ("total", "direct")]
