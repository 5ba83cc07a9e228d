"""The images that a command shows to networks: named one by one, or some of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.common.options import DataOptions
from cli.common.publish import report_skipped
from dia_analysis.distributed import all_gather
from dia_analysis.results.words import quantity
from dia_models import ModelInputError
from dia_models.data import ImageSource, Outputs, open_data, open_files
from dia_models.data.groups import with_groups
from dia_models.data.labels import class_numbers
from dia_models.data.selection import Selection
from dia_models.training.device import process_device

if TYPE_CHECKING:
    from dia_analysis import ImageList

ANALYZED, EXPLAINED, MEASURED = 1000, 4, 512
"""Images that are analyzed, explained, and whose gradients are measured by default."""


@dataclass(frozen=True)
class SelectedImages(Selection):
    """Images of a command; `named` says that they were chosen one by one."""

    named: bool = False

    def paths(self) -> tuple[str, ...]:
        """The readable images' names: the path where images were named, else as the data set calls them."""
        root = getattr(self.source, "root", Path()) if self.named else Path()
        return tuple(str(root / self.source.name(index)) for index in self.readable())

    def image_list(self) -> "ImageList":
        """The chosen images' names and labels, and the names of the classes."""
        from dia_analysis import ImageList  # late: it loads Zarr

        labels = tuple(int(self.source.labels[index]) for index in self.chosen)
        return ImageList(tuple(self.names()), labels, self.source.classes)

    def blamed(self, error: ModelInputError) -> ModelInputError:
        """An error on reading an image, naming where it was given."""
        return ModelInputError("IMAGES" if self.named else error.argument, str(error))

    def report_unreadable(self) -> None:
        """Name the files that were skipped."""
        skipped = {name: why for each in all_gather(dict(self.source.unreadable)) for name, why in each.items()}
        report_skipped(skipped, len(self.chosen))


def select_images(
    options: DataOptions, default: str | None, otherwise: int = ANALYZED, paths: Sequence[Path] = ()
) -> SelectedImages:
    """Open the images: those at `paths`, or `options.images` of the data set, else `otherwise` or all there are.

    Raises ModelInputError if they do not exist or both ways of choosing are used.
    """
    device = process_device(options.device)
    where: Any = {"device": device, "batch_size": options.batch_size, "seed": options.seed}
    if paths:
        source = _open_named(paths, options)
        selection = f"{quantity(len(source), 'image')}, named one by one"
        return SelectedImages("files", source, list(range(len(source))), selection, named=True, **where)
    data = chosen_data(options, default)
    source = open_part(options, data, "any", otherwise)
    return SelectedImages.spread(data, source, options.images or min(otherwise, len(source)), **where)


def select_labelled(options: DataOptions, default: str) -> SelectedImages:
    """The images to measure gradients on. Raises ModelInputError for images that have no labels."""
    images = select_images(options, default, MEASURED)
    classes = images.source.classes
    class_numbers(images.source, Outputs(len(classes), classes), images.data)
    return images.in_even_batches()


def chosen_data(options: DataOptions, default: str | None) -> str:
    """The data that the user names, or else the default. Raises ModelInputError without either."""
    if (data := options.data or default) is None:
        raise ModelInputError("data", "none given, and no checkpoint says what its network was trained on; name some")
    return data


def open_part(options: DataOptions, data: str, split: str, otherwise: int = ANALYZED) -> ImageSource:
    """A part of a data set; of data without a length `options.images`, else `otherwise`."""
    how: Any = {"workers": options.workers, "strict": options.strict, "download": options.download}
    how |= {"limit": options.images or otherwise, "uncertain": options.uncertain}
    source = open_data(data, split, options.data_dir, **how)
    return source if split == "train" else with_groups(source, options.groups, options.group_pattern)


def _open_named(paths: Sequence[Path], options: DataOptions) -> ImageSource:
    for option, value in (("data", options.data), ("images", options.images)):
        if value is not None:
            raise ModelInputError(option, f"{value} given beside images named one by one; give one or the other")
    try:
        found = open_files(paths, workers=options.workers, strict=options.strict)
    except ModelInputError as error:
        raise ModelInputError("IMAGES", str(error)) from error
    return with_groups(found, options.groups, options.group_pattern)
