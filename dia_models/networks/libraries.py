"""Networks of this library, of timm and of torchvision, by name."""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from dia_models.data.framing import Scaling
from dia_models.data.preprocessing import CIFAR_MEAN, CIFAR_STD, Preprocessing
from dia_models.data.synsets import imagenet_synsets
from dia_models.errors import ModelInputError, did_you_mean, one_line, some, unknown
from dia_models.factory import accepted_options, create_model, require_classifier
from dia_models.networks.records import timm_record
from dia_models.networks.request import Record, Request
from dia_models.spec import Network

IMAGENET_CLASSES = 1000
CIFAR = Preprocessing(height=32, width=32, mean=CIFAR_MEAN, std=CIFAR_STD)


@dataclass(frozen=True)
class OwnSource:
    """A network of this library."""

    name: str

    def make(self, request: Request, *, pretrained: bool = False) -> Network:
        """As `create_model`."""
        require_classifier(self.name, "model")
        if pretrained:
            raise ModelInputError(
                "pretrained", f"{self.name} has no weights to fetch; a checkpoint is opened by its own name"
            )
        options = dict(request.options)
        if request.image_size is not None and "image_size" in accepted_options(self.name):
            options.setdefault("image_size", request.image_size[0])
        return create_model(self.name, num_classes=request.num_classes, in_channels=request.channels or 3, **options)

    def takes_classes(self) -> bool:
        """Always."""
        return True

    def record(self, model: nn.Module) -> Record:
        """The channels, and a transformer's size; CIFAR's size, mean and std are the usual ones of small networks."""
        assert isinstance(model, Network)
        size = model.spec.options.get("image_size")
        return Record(
            "the network's options",
            (size, size) if isinstance(size, int) else None,
            channels=model.spec.in_channels,
            usual=CIFAR if self.name.startswith("cifar_") else None,
        )


@dataclass(frozen=True)
class TimmSource:
    """A network of timm, or of the Hugging Face hub through timm (`hf-hub:ORG/NAME`)."""

    given: str

    @property
    def name(self) -> str:
        """Without the organisation."""
        return self.given.rpartition("/")[2]

    def make(self, request: Request, *, pretrained: bool = False) -> nn.Module:
        """As `timm.create_model`."""
        with _loading("timm", self.given):
            import timm

            if not self.given.startswith("hf-hub:") and not timm.is_model(self.given):
                raise unknown("model", self.given, timm.list_models(), listed_by="timm.list_models()")
            options = dict(request.options)
            if request.num_classes is not None:
                options.setdefault("num_classes", request.num_classes)
            if request.channels is not None:
                options.setdefault("in_chans", request.channels)
            if request.image_size is not None and self._has_fixed_size():
                options.setdefault("img_size", request.image_size)

            def make(**given: Any) -> nn.Module:
                model: nn.Module = timm.create_model(self.given, pretrained=pretrained, **given)
                return model

            return _call(make, options, request, self.given)

    def takes_classes(self) -> bool:
        """Always."""
        return True

    def record(self, model: nn.Module) -> Record:
        """What timm says of the published weights of this name."""
        return timm_record(model) or Record("timm's record")

    def _has_fixed_size(self) -> bool:
        from timm.models import get_pretrained_cfg

        found = None if self.given.startswith("hf-hub:") else get_pretrained_cfg(self.given)
        return bool(found and found.fixed_input_size)


@dataclass(frozen=True)
class TorchvisionSource:
    """A classifier of torchvision."""

    name: str

    def make(self, request: Request, *, pretrained: bool = False) -> nn.Module:
        """As `torchvision.models.get_model`."""
        with _loading("torchvision", self.name):
            from torchvision import models

            if self.name not in models.list_models():
                raise unknown(
                    "model", self.name, models.list_models(models), listed_by="torchvision.models.list_models()"
                )
            options = dict(request.options)
            if request.num_classes is not None:
                options.setdefault("num_classes", request.num_classes)
            if request.channels not in (None, 3):
                raise ModelInputError("channels", f"{self.name} of torchvision takes images of 3 channels only")
            if request.image_size is not None and "image_size" in self._parameters():
                options.setdefault("image_size", request.image_size[0])
            if "weights_backbone" in inspect.signature(models.get_model_builder(self.name)).parameters:
                options.setdefault("weights_backbone", None)  # which else are fetched

            def make(**given: Any) -> nn.Module:
                model: nn.Module = models.get_model(self.name, weights="DEFAULT" if pretrained else None, **given)
                return model

            return _call(make, options, request, self.name)

    def takes_classes(self) -> bool:
        """Always."""
        return True

    def record(self, model: nn.Module) -> Record:
        """What torchvision says of its weights of this name."""
        from torchvision.models import get_model_weights

        weights: Any = getattr(get_model_weights(self.name), "DEFAULT", None)
        if weights is None:
            return Record("torchvision's record")
        shown = weights.transforms()
        if not hasattr(shown, "crop_size"):  # of a detector
            return Record("torchvision's record")
        size = getattr(model, "image_size", None) or shown.crop_size[0]
        categories = weights.meta.get("categories")
        return Record(
            "torchvision's record",
            (size, size),
            tuple(shown.mean),
            tuple(shown.std),
            3,
            categories and tuple(categories),
            imagenet_synsets() if categories and len(categories) == IMAGENET_CLASSES else None,
            _torchvision_scaling(shown),
        )

    def _parameters(self) -> Any:
        from torchvision.models import get_model_builder

        builder = get_model_builder(self.name)
        return () if not self.name.startswith("vit_") else ("image_size", *inspect.signature(builder).parameters)


def _torchvision_scaling(shown: Any) -> Callable[[tuple[int, int]], Scaling]:
    """How the transforms of torchvision's weights scale images; for other sizes in proportion."""
    (scaled,), (seen,) = shown.resize_size, shown.crop_size
    method = shown.interpolation.value

    def scaling(size: tuple[int, int]) -> Scaling:
        return Scaling(height=size[0] * scaled // seen, width=size[1] * scaled // seen, interpolation=method)

    return scaling


@contextmanager
def _loading(package: str, name: str) -> Iterator[None]:
    """Use the package inside; what it raises, or that it is missing, becomes one line. It prints to stderr."""
    if find_spec(package) is None:
        raise ModelInputError("model", f"{name} needs the package {package}: pip install 'dia-analysis[{package}]'")
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what these libraries will do in later versions
        yield


def _call(make: Callable[..., nn.Module], options: dict[str, Any], request: Request, name: str) -> nn.Module:
    """Make a network. Raises ModelInputError: for an option that it does not take, it lists the others."""
    try:
        return make(**options)
    except TypeError as error:
        wrong = next((o for o in request.options if f"unexpected keyword argument '{o}'" in str(error)), None)
        if wrong is None:
            raise _failed(name, error) from error
        accepted = _accepted(make)
        hint = did_you_mean(wrong, accepted)
        raise ModelInputError("set", f"{name} has no option {wrong}; {hint}accepted: {some(accepted, 12)}") from error
    except (KeyboardInterrupt, ModelInputError):
        raise
    except Exception as error:  # what a library raises for an option, a missing file or a network that does not answer
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> ModelInputError:
    return ModelInputError("model", f"{name} cannot be made: {type(error).__name__}: {one_line(error, 200)}")


def _accepted(make: Callable[..., nn.Module]) -> list[str]:
    """The options of a network's class."""
    try:
        with torch.device("meta"):
            kind = type(make())
        parameters = inspect.signature(kind).parameters.values()
    except Exception:
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
