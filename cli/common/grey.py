"""X-ray networks and pictures that are no X-rays."""

from collections.abc import Iterator, Sequence

from cli.common.console import note
from dia_models import ModelInputError, OpenedNetwork
from dia_models.data import ImageSource, as_pictures, evenly_spaced
from dia_models.data.chest_xray import CLASSES, COLORED, colorfulness

LOOKED_AT, NAMED = 64, 5
SIZE = (64, 64)


def warn_of_colour(networks: Sequence[OpenedNetwork], source: ImageSource, chosen: Sequence[int]) -> None:
    """Warn of coloured pictures among those that a chest X-ray network is shown; of many, 64 are looked at."""
    if not any(map(_reads_x_rays, networks)):
        return
    some = [chosen[i] for i in evenly_spaced(min(LOOKED_AT, len(chosen)), len(chosen))]
    coloured = [(name, levels) for name, levels in _colours(source, some) if levels >= COLORED]
    for name, levels in coloured[:NAMED]:
        note(
            f"warning: {name} is coloured: red, green and blue differ by {levels:.0f} of 255 levels on average, in an "
            "X-ray by 0. It looks like a photograph; what a chest X-ray network says of it means nothing"
        )
    if len(coloured) > NAMED:
        note(f"warning: and {len(coloured) - NAMED} more of the {len(some)} images that were looked at are coloured")


def _colours(source: ImageSource, indices: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Each readable file's name and how coloured it is; of files that cannot be read others speak."""
    try:
        for batch in source.batches(indices, 16, SIZE, 3):
            yield from zip(batch.names, colorfulness(as_pictures(batch.pixels, SIZE)).tolist(), strict=True)
    except ModelInputError:
        return


def _reads_x_rays(network: OpenedNetwork) -> bool:
    return tuple(name.upper() for name in network.classes or ()) == CLASSES
