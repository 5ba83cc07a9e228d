"""Start training from the weights of a checkpoint."""

import torch

from dia_models.backbones.detectors import Detector
from dia_models.checkpoints.backbone_weights import load_backbone
from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.data import Preprocessing
from dia_models.errors import ModelInputError
from dia_models.factory import classifier_of, without_attention
from dia_models.spec import Network


def start_from(checkpoint: Checkpoint, model: Network) -> None:
    """Copy weights into a network: those of the same network, or into a detector's body those of its classifier.

    A network without attention takes those of the same with attention, which is left out.

    Raises ModelInputError for a checkpoint of another network.
    """
    given = checkpoint.info.model
    if given == model.spec:
        model.load_state_dict(checkpoint.weights)
        return
    if model.spec == without_attention(given):
        names = model.state_dict()
        model.load_state_dict({name: tensor for name, tensor in checkpoint.weights.items() if name in names})
        return
    wanted = ""
    if isinstance(model, Detector):
        classifier = classifier_of(model.spec)
        if (given.name, given.options) == (classifier.name, classifier.options):
            load_backbone(model.backbone.body, checkpoint.weights, leave_out=["fc"])
            _fit_input(model, checkpoint.info.preprocessing)
            return
        options = ", ".join(f"{key}={value}" for key, value in classifier.options.items())
        wanted = f"; accepted: that, or {classifier.name}" + (f" with {options}" if options else "")
    raise ModelInputError(
        "from",
        f"{checkpoint.name} holds {given.name} of {given.num_classes} classes, which cannot start {model.spec.name} "
        f"of {model.spec.num_classes}{wanted}",
    )


def _fit_input(model: Detector, seen: Preprocessing) -> None:
    """Make the first layer take colors as the detector normalizes them instead of as the classifier's training did.

    Exact but at the border, where both see zeros.
    """
    theirs, ours = (
        [torch.tensor(values) for values in pair]
        for pair in ((seen.mean, seen.std), (model.transform.image_mean, model.transform.image_std))
    )
    with torch.no_grad():
        body = model.backbone.body
        weight = body.conv1.weight
        offset = (weight * ((ours[0] - theirs[0]) / theirs[1])[:, None, None]).sum((1, 2, 3))
        weight *= (ours[1] / theirs[1])[:, None, None]
        body.bn1.running_mean -= offset
