"""Networks that the user's own code makes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from dia_models.networks.records import carried_record
from dia_models.networks.request import Record, Request
from dia_models.user_code import UserCode


@dataclass(frozen=True)
class CodeSource:
    """A function or class of the user's, named `file.py:name` or `package.module:name`, that gives a network."""

    given: str

    @cached_property
    def code(self) -> UserCode:
        """What is run."""
        return UserCode(self.given, "model")

    @property
    def name(self) -> str:
        """`file.name`, or `module.name`."""
        return f"{Path(self.code.module).stem.rpartition('.')[2]}.{self.code.attribute}"

    def make(self, request: Request, *, pretrained: bool = False) -> nn.Module:
        """Call it with the options, and with `num_classes` if that is given and it has such a parameter."""
        if pretrained:
            raise self.code.error("pretrained weights are fetched for networks of timm and torchvision only")
        found = self.code.load()
        if isinstance(found, nn.Module):
            raise self.code.error(
                f"{self.given} is a network that is made already; name a function or a class that makes it, so that "
                "it can be made again without its weights"
            )
        options = dict(request.options)
        if request.num_classes is not None and self.takes_classes():
            options.setdefault("num_classes", request.num_classes)
        made: Any = self.code.call(options)
        if not isinstance(made, nn.Module):
            raise self.code.error(self._no_network(made))
        return made

    def takes_classes(self) -> bool:
        """Whether it has a parameter `num_classes`."""
        return self.code.takes("num_classes")

    def record(self, model: nn.Module) -> Record:
        """What the network carries with it: timm's record, a configuration of transformers."""
        return carried_record(model)

    def _no_network(self, made: Any) -> str:
        kind = type(made).__name__
        if kind == "ExportedProgram":
            return f"{self.given} gives an exported program, whose inside cannot be watched; give the torch.nn.Module"
        hint = "; it needs a return" if made is None else ""
        return f"{self.given} gives a {kind}, where a torch.nn.Module is needed{hint}"
