"""Does DIA-LSTM make gradients larger? Networks beside their plain backbones, which dia_models knows."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from dia_analysis.paper import gradient_pairs
from dia_models import ModelSpec
from dia_models.factory import without_attention


def _backbone(made_from: Mapping[str, Any]) -> dict[str, Any]:
    return without_attention(ModelSpec.model_validate(made_from)).model_dump(mode="json")


dia_lstm_beside_plain = partial(gradient_pairs.dia_lstm_beside_plain, backbone_of=_backbone)
finding = partial(gradient_pairs.gradient_finding, backbone_of=_backbone)
