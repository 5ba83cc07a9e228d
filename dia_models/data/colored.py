"""Pictures that are no X-rays: those in color."""

from collections.abc import Iterator, Sequence

from dia_models.data.chest_xray import COLORED, colorfulness
from dia_models.data.image_source import ImageSource
from dia_models.data.images import evenly_spaced
from dia_models.data.python_images import as_pictures
from dia_models.errors import ModelInputError

LOOKED_AT, NAMED = 64, 5
SIZE = (64, 64)


def warnings_of_color(source: ImageSource, chosen: Sequence[int]) -> list[str]:
    """A line for each colored picture among those at the indices; of many, 64 are looked at and 5 named."""
    some = [chosen[i] for i in evenly_spaced(min(LOOKED_AT, len(chosen)), len(chosen))]
    colored = [(name, levels) for name, levels in _levels(source, some) if levels >= COLORED]
    lines = [
        f"{name} is colored: red, green and blue differ by {levels:.0f} of 255 levels on average, in an X-ray by 0. "
        "It looks like a photograph; what a chest X-ray network says of it means nothing"
        for name, levels in colored[:NAMED]
    ]
    if len(colored) > NAMED:
        lines.append(f"and {len(colored) - NAMED} more of the {len(some)} images that were looked at are colored")
    return lines


def _levels(source: ImageSource, indices: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Each readable file's name and how colored it is; of files that cannot be read others speak."""
    try:
        for batch in source.batches(indices, 16, SIZE, 3):
            yield from zip(batch.names, colorfulness(as_pictures(batch.pixels, SIZE)).tolist(), strict=True)
    except ModelInputError:
        return
