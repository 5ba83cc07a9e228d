"""What is asked of a network's source, and what sources say of networks besides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn

from dia_models.data.framing import Scaling
from dia_models.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Request:
    """How a network is to be made. None leaves a number to the source; `image_size` is (height, width)."""

    options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    channels: int | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Record:
    """What is known of the images and the classes that a network expects; `origin` says in words from where.

    None is what is not known. `synsets` are ImageNet's names of the classes, such as n01440764. `scaling` is how images
    are scaled for a size (height, width), before their center is cut out. `usual` is what is assumed where nothing else
    is known; `separate` says that outputs are findings, of which an image may have several.
    """

    origin: str
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    synsets: tuple[str, ...] | None = None
    scaling: Callable[[tuple[int, int]], Scaling] | None = None
    usual: Preprocessing | None = None
    separate: bool = False


@runtime_checkable
class Source(Protocol):
    """Makes one network, again and again; random weights are drawn from the global random generators."""

    @property
    def name(self) -> str:
        """What the network is called."""

    def make(self, request: Request, *, pretrained: bool = False) -> Any:
        """Make the network. Raises ModelInputError for what it does not take."""

    def takes_classes(self) -> bool:
        """Whether the number of classes can be chosen."""

    def record(self, model: nn.Module) -> Record:
        """What is known of the images that it expects."""
