"""What images a network is shown: as asked for, as its record says, or else assumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from pydantic import ValidationError
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dia_models.data.framing import Scaling
from dia_models.data.preprocessing import Preprocessing
from dia_models.errors import ModelInputError, first_problem
from dia_models.networks.request import Record
from dia_models.words import quantity

IMAGENET = Preprocessing(height=224, width=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SMALLEST_CROP, LARGEST_SIDE = 0.1, 4096
GIVEN, ASSUMED = "as given", "assumed"
Values = float | Sequence[float]


@dataclass(frozen=True)
class Asked:
    """What the user says of the images; None is what they leave open."""

    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None
    crop: float | None = None

    @classmethod
    def of(
        cls,
        image_size: int | Sequence[int] | None,
        mean: Values | None,
        std: Values | None,
        channels: int | None,
        crop: float | None = None,
    ) -> "Asked":
        """From single numbers or sequences. Raises ModelInputError for a size or a crop that is none."""
        if crop is not None and not SMALLEST_CROP <= crop <= 1:
            raise ModelInputError("crop", f"{crop:g} given; accepted: the share of the sides that is seen, 0.1 to 1")
        size = (image_size,) if isinstance(image_size, int) else image_size
        if size is not None and len(size) not in (1, 2):
            raise ModelInputError("image_size", f"{list(size)} given; give one number, or height and width")
        return cls(None if size is None else (size[0], size[-1]), _values(mean), _values(std), channels, crop)


@dataclass(frozen=True)
class Chosen:
    """The preprocessing, and for `image_size`, `channels`, `mean` and `std` where each comes from."""

    preprocessing: Preprocessing
    origins: Mapping[str, str]

    @property
    def size_is_assumed(self) -> bool:
        """Whether another size may be taken."""
        return self.origins["image_size"].startswith(ASSUMED)

    def with_size(self, size: tuple[int, int]) -> "Chosen":
        """The same with another size, which the network was seen to take."""
        shown = self.preprocessing.at(*size)
        return Chosen(shown, {**self.origins, "image_size": f"{ASSUMED}: the first of the usual sizes that it takes"})


def choose(asked: Asked, record: Record, otherwise: Preprocessing | None, model: nn.Module) -> Chosen:
    """Decide on each: as asked, as recorded, as `otherwise`, or as is usual for such networks.

    Raises ModelInputError for values that cannot be, and for other numbers of means or deviations than channels.
    """
    channels, of_channels = _channels(asked, record, model)
    last = otherwise or record.usual or IMAGENET
    of_last = f"{ASSUMED}: {'as in the data' if otherwise else 'as for CIFAR' if record.usual else 'as for ImageNet'}"
    values, origins = {}, {"channels": of_channels}
    for name in ("mean", "std"):
        given, known, usual = (getattr(each, name) for each in (asked, record, last))
        if given is not None:
            values[name], origins[name] = _one_each(name, given, channels), GIVEN
        elif known is not None:
            values[name], origins[name] = _fitted(known, channels), record.origin
        else:
            values[name], origins[name] = _fitted(usual, channels), of_last
    size = asked.image_size or record.image_size or last.size
    origins["image_size"] = GIVEN if asked.image_size else record.origin if record.image_size else of_last
    scaling = _scaling(asked, record, size)
    try:
        shown = Preprocessing(height=size[0], width=size[1], mean=values["mean"], std=values["std"], scaling=scaling)
    except ValidationError as error:
        place, given, reason = first_problem(error)
        name = {"height": "image_size", "width": "image_size"}.get(place.partition(".")[0], place.partition(".")[0])
        raise ModelInputError(name, f"{given!r}: {reason}") from error
    return Chosen(shown, origins)


def _scaling(asked: Asked, record: Record, size: tuple[int, int]) -> Scaling | None:
    """As recorded, for the share of the sides that is asked for."""
    known = record.scaling and record.scaling(size)
    if asked.crop is None or max(size) > LARGEST_SIDE:
        return known
    height, width = (floor(side / asked.crop) for side in size)
    return (known or Scaling(height=1, width=1)).model_copy(update={"height": height, "width": width})


def _channels(asked: Asked, record: Record, model: nn.Module) -> tuple[int, str]:
    if asked.channels is not None:
        return asked.channels, GIVEN
    if record.channels is not None:
        return record.channels, record.origin
    if (first := next((m for m in model.modules() if isinstance(m, _ConvNd)), None)) is not None:
        return first.in_channels, "those of its first convolution"
    for values in (asked.mean, asked.std):
        if values is not None and len(values) > 1:
            return len(values), GIVEN
    return 3, f"{ASSUMED}: color"


def _values(given: Values | None) -> tuple[float, ...] | None:
    return None if given is None else (float(given),) if isinstance(given, int | float) else tuple(map(float, given))


def _one_each(name: str, given: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(given) not in (1, channels):
        many = f"one for each of the {channels} channels" if channels > 1 else "for the one channel"
        raise ModelInputError(
            name, f"{quantity(len(given), 'number')} given; give one, or {many}".replace("one, or for", "one, for")
        )
    return given if len(given) == channels else given * channels


def _fitted(known: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Known values, for other channels than they were made for their mean."""
    return tuple(known) if len(known) == channels else (round(sum(known) / len(known), 4),) * channels
