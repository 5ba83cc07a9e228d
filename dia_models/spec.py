"""A network of this library: a module that knows how it was made."""

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from torch import nn

Option = StrictBool | StrictInt | StrictFloat | StrictStr | tuple[StrictInt, ...]


class ModelSpec(BaseModel):
    """All that is needed to build a network again, apart from its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=100)
    num_classes: int | None = Field(default=None, ge=1, le=1_000_000)
    in_channels: int = Field(default=3, ge=1, le=1_024)
    options: dict[str, Option] = {}

    @property
    def label(self) -> str:
        """The name and the options: the same for training runs that differ in their seed only."""
        changed = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name} ({changed})" if changed else self.name


class Network(nn.Module):
    """What `create_model` gives.

    A classifier takes images (batch, in_channels, height, width) and gives logits (batch, num_classes); what the
    others take and give, `dia_models.backbones.detectors.Detector` and `dia_models.backbones.uvit.UViT` say.
    """

    spec: ModelSpec
