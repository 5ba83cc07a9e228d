"""Open anyone's network by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.checkpoints.files import SUFFIX, list_checkpoints
from dia_models.checkpoints.state_dict import read_state_dict
from dia_models.errors import ModelInputError
from dia_models.factory import require_classifier
from dia_models.networks.checks import Trial, plain, refuse_empty, refuse_opaque
from dia_models.networks.class_names import Classes, name_classes
from dia_models.networks.code import CodeSource
from dia_models.networks.data_facts import DataFacts
from dia_models.networks.opened import OpenedNetwork
from dia_models.networks.preprocessing import Asked, Chosen, Values, choose
from dia_models.networks.request import Record, Request, Source
from dia_models.networks.sources import find_source
from dia_models.networks.weights import Fit, fit
from dia_models.user_code import seeded


def open_network(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    pretrained: bool = False,
    options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    image_size: int | Sequence[int] | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    channels: int | None = None,
    crop: float | None = None,
    classes: Classes | None = None,
    data: DataFacts | None = None,
    seed: int = 0,
) -> OpenedNetwork:
    """Open a network of this library, of timm, of torchvision, of the Hugging Face hub, or of your own code.

    Args:
        name: A model (`list_models`), a checkpoint of this library (a file or a bundled name), `timm:NAME`,
            `torchvision:NAME`, `hf-hub:ORG/NAME`, or a function or class of your own, which is run: `file.py:name` or
            `package.module:name`.
        weights: A file with its state dict (.pth, .pt, .ckpt, .safetensors, .bin, .tar), from which nothing is
            executed. `state_dict`, `model`, `model_ema` and the like, and what stands before the names, are found.
        pretrained: Fetch the weights that timm, torchvision or the hub has.
        options: What the network is made with, such as `{"width": 24}`.
        num_classes: Its classes; by default as many as the weights have, or its own default.
        image_size: Pixels of its images: one number, or height and width.
        mean: Subtracted from values of 0 to 1: one number, or one for each channel.
        std: By which they are divided, likewise.
        channels: 1, 3 or what the network takes.
        crop: The share of the scaled image's sides that it sees, such as 0.875 for 224 of 256 pixels, the image's
            shorter side; 1 for all of it.
        classes: The names of its outputs in their order, or a file with one a line.
        data: What the images are that it will see: the size, mean and std where nothing says them (else 224 pixels and
            ImageNet's), and the classes for which a network with random weights is made.
        seed: Random weights are drawn from it.

    Returns:
        The network, on the CPU, in evaluation mode. What is not given comes from the checkpoint, or from timm's or
        torchvision's own record of the network; `origins` says what was assumed.

    Raises:
        ModelInputError: For a name, a file or an option that does not exist, for what your code raises, for weights
            of another network, and for a network that no analysis can take.
    """
    asked = Asked.of(image_size, mean, std, channels, crop)
    if _is_checkpoint(str(name)):
        if weights is not None or pretrained or options or num_classes is not None:
            raise ModelInputError(
                "weights", f"{name} is a checkpoint, which says how its network is made and has its weights"
            )
        return open_checkpoint(Checkpoint.read(name), asked, classes)
    if weights is not None and pretrained:
        raise ModelInputError("pretrained", f"weights are given too ({weights}); give one or the other")
    source, request = find_source(str(name)), Request(dict(options or {}), num_classes, channels, asked.image_size)
    data = data or DataFacts()
    if weights is not None or pretrained:
        maker = _Maker(str(name), source, request, pretrained, seed)
        return maker.open(None if weights is None else Path(weights).expanduser(), asked, classes, data)
    suited = data.suit(source, request)
    named = data.classes if classes is None and suited.num_classes == len(data.classes) else classes
    try:
        return _Maker(str(name), source, suited, False, seed).open(None, asked, named, data)
    except ModelInputError:
        if suited == request or not isinstance(source, CodeSource):
            raise
        return _Maker(str(name), source, request, False, seed).open(None, asked, classes, data)  # it has weights inside


def open_checkpoint(
    checkpoint: Checkpoint, asked: Asked | None = None, classes: Classes | None = None
) -> OpenedNetwork:
    """The classifier in a checkpoint of this library. Raises ModelInputError for another network, and as `choose`."""
    info = checkpoint.info
    require_classifier(info.model.name, "ckpt")
    model, shown = checkpoint.build(), info.preprocessing
    record = Record("the checkpoint", shown.size, shown.mean, shown.std, info.model.in_channels, info.classes)
    chosen = choose(asked or Asked(), record, None, model)
    if (channels := len(chosen.preprocessing.mean)) != info.model.in_channels:
        raise ModelInputError("channels", f"{channels} given; {checkpoint.name} takes {info.model.in_channels}")
    names, origin = name_classes(classes, record, info.model.num_classes)
    return OpenedNetwork(
        name=checkpoint.name,
        source=str(checkpoint.path),
        model=model,
        preprocessing=chosen.preprocessing,
        num_classes=info.model.num_classes,
        classes=names,
        weights=checkpoint.path.name,
        training="recorded" if info.recipe and info.epoch != 0 else "none",
        origins={**chosen.origins, "classes": origin},
        seed=info.seed,
        checkpoint=checkpoint,
    )


def _is_checkpoint(name: str) -> bool:
    return name.endswith(SUFFIX) or name in list_checkpoints()


class _Maker:
    """Makes one network, with its weights."""

    def __init__(self, given: str, source: Source, request: Request, pretrained: bool, seed: int):
        if pretrained and request.num_classes is not None:
            raise ModelInputError(
                "num_classes",
                f"{request.num_classes} given; fetched weights have their own classes, and other ones would be "
                "untrained. Give weights that you trained for them",
            )
        self.given, self.source, self.request = given, source, request
        self.pretrained, self.seed = pretrained, seed

    def make(self, pretrained: bool = False) -> nn.Module:
        """The network, with random weights unless pretrained ones are fetched."""
        with seeded(self.seed):
            model = plain(self.source.make(self.request, pretrained=pretrained))
        refuse_opaque(model, self.source.name)
        return model

    def open(self, weights: Path | None, asked: Asked, classes: Classes | None, data: DataFacts) -> OpenedNetwork:
        """The network and what is known of it."""
        name, model = self.source.name, self.make(self.pretrained)
        fitted = None
        if weights is not None:
            model, fitted = self._fit(weights, model)
        later = any(map(is_lazy, model.parameters()))  # their sizes are known after a first pass
        if fitted is not None and not later:
            fitted.load(model)
        refuse_empty(model, name)
        model.eval()
        record = self.source.record(model)
        chosen, outputs = _tried(Trial(model, name), choose(asked, record, data.preprocessing, model))
        if fitted is not None and later:
            fitted.load(model)
        if (wanted := self.request.num_classes) is not None and outputs not in (None, wanted):
            raise ModelInputError("num_classes", f"{wanted} given; {name} gives {outputs}")
        names, origin = name_classes(classes, record, outputs, data.classes)
        trained = self.pretrained or weights is not None
        inside = not trained and isinstance(self.source, CodeSource) and self._has_weights_inside(model)
        return OpenedNetwork(
            name=name,
            source=self.given,
            model=model,
            preprocessing=chosen.preprocessing,
            num_classes=outputs,
            classes=names,
            weights=f"those that {self.given} gives it" if inside else self._words(fitted),
            training="loaded" if trained or inside else "none",
            origins={**chosen.origins, "classes": origin},
            seed=self.seed,
            synsets=record.synsets if record.synsets and len(record.synsets) == outputs else None,
            separate=record.separate,
            make_again=self.make if trained else None,
        )

    def _has_weights_inside(self, model: nn.Module) -> bool:
        """Whether the user's code gives it weights that depend on no seed: those of a training."""
        with seeded(self.seed + 1):
            other = dict(plain(self.source.make(self.request)).named_parameters())
        own = {name: p.cpu() for name, p in model.named_parameters() if not is_lazy(p) and p.numel() > 1}
        varied = [name for name, p in own.items() if (p != p.flatten()[0]).any()]
        return bool(varied) and all(name in other and torch.equal(other[name], own[name]) for name in varied)

    def _fit(self, weights: Path, model: nn.Module) -> tuple[nn.Module, Fit]:
        """The network and its weights; where only the number of classes differs, the network made with theirs."""
        state = read_state_dict(weights)
        found = fit(state, model)
        count = found.num_classes()
        chosen = self.request.num_classes is not None or "num_classes" in self.request.options
        if count is not None and not chosen and self.source.takes_classes():
            self.request = replace(self.request, num_classes=count)
            model = self.make()
            found = fit(state, model)
        found.check(self.source.name)
        return model, found

    def _words(self, fitted: Fit | None) -> str:
        if fitted is None:
            return f"those of {self.given}, fetched" if self.pretrained else f"random, seed {self.seed}"
        under = f", under {fitted.prefix!r}" if fitted.prefix else ""
        left = [name for name in fitted.left_out if fitted.prefix]
        return f"{fitted.state.place}{under}" + (f" ({len(left)} other tensors left out)" if left else "")


def _tried(trial: Trial, chosen: Chosen) -> tuple[Chosen, int | None]:
    """The preprocessing with which the network runs, and how many scores it then gives."""
    try:
        return chosen, trial.outputs(chosen.preprocessing)
    except ModelInputError as error:
        if error.argument != "image_size" or not chosen.size_is_assumed:
            raise
        size = trial.size(chosen.preprocessing)
        if size is None:
            raise
        other = chosen.with_size(size)
        return other, trial.outputs(other.preprocessing)
