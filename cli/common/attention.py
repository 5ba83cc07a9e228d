"""What attention a checkpoint's network has, and whether it is known to be trained."""

from cli.common.inputs import Inputs
from dia_analysis.paper.findings import Attention
from dia_analysis.probes.points import has_attention
from dia_models.factory import blueprint


def attention_of(inputs: Inputs) -> Attention:
    """What attention a network has, in the words of the paper's claims."""
    kind = blueprint(inputs.checkpoint.info.model).plan.kind
    if kind is None:
        return "self-attention" if has_attention(inputs.model) else "none"
    if kind.name.startswith("dia_lstm"):
        return "DIA-LSTM (Light)" if kind.name == "dia_lstm_light" else "DIA-LSTM"
    return "shared" if kind.shared else "one module per layer"


def known_trained(inputs: Inputs) -> bool:
    """Whether the checkpoint records a training, and is not of a run's beginning."""
    info = inputs.checkpoint.info
    return bool(info.recipe) and info.epoch != 0
