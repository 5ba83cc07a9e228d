"""What a network makes of images before it classifies them: the space in which sets of images are compared."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.data import MemoryImages
from dia_models.data.images import resize_crop
from dia_models.errors import ModelInputError
from dia_models.factory import require_classifier

INCEPTION = "inception"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
BATCH = 256

Pixels = UInt8[Tensor, "_ height width channel"]
Features = Float[np.ndarray, "described feature"]


@dataclass(frozen=True)
class FeatureNetwork:
    """A network by name, with the SHA-256 of its weights; `describe` gives a batch's features."""

    name: str
    sha256: str
    describe: Callable[[Pixels, torch.device], Float[Tensor, "image feature"]]

    @torch.inference_mode()
    def __call__(self, batches: Iterable[Pixels], device: torch.device) -> Features:
        """The features of all images."""
        return torch.cat([self.describe(pixels, device).float().cpu() for pixels in batches]).numpy()

    def of(self, images: MemoryImages, device: torch.device) -> Features:
        """The features of images in memory."""
        return self(torch.split(images.pixels, BATCH), device)


def feature_network(name: str) -> FeatureNetwork:
    """A classifier's checkpoint, whose last linear layer's input is taken, or `inception`, on which FID is defined.

    Raises ModelInputError for another network, and if Inception's package or weights are not there.
    """
    if name == INCEPTION:
        return _inception()
    try:
        checkpoint = Checkpoint.read(name)
    except ModelInputError as error:
        raise ModelInputError("features", str(error)) from error
    require_classifier(checkpoint.info.model.name, "features")
    model = checkpoint.build()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    size, channels = checkpoint.info.preprocessing.size, checkpoint.info.model.in_channels

    def describe(pixels: Pixels, device: torch.device) -> Float[Tensor, "image feature"]:
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            model.to(device)(checkpoint.info.preprocessing(resize_crop(pixels, size, channels).to(device)))
        finally:
            hook.remove()
        return seen[0]

    return FeatureNetwork(checkpoint.name, checkpoint.sha256, describe)


def _inception() -> FeatureNetwork:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ModelInputError(
            "features", "inception needs torch-fidelity, which is not installed; pip install 'dia-analysis[generation]'"
        ) from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    digest = _verify_sha256(path)
    model: Any = FeatureExtractorInceptionV3(INCEPTION, ["2048"], feature_extractor_weights_path=str(path))

    def describe(pixels: Pixels, device: torch.device) -> Float[Tensor, "image feature"]:
        found: Tensor = model.to(device)(resize_crop(pixels, None, 3).permute(0, 3, 1, 2).to(device))[0]
        return found

    return FeatureNetwork(INCEPTION, digest, describe)


def _verify_sha256(path: Path) -> str:
    """The weights' SHA-256, which begins as their file's name ends: they are a pickle, and no other one is opened."""
    if not path.is_file():
        raise ModelInputError("features", f"inception needs {path}; download it from {INCEPTION_URL}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rpartition("-")[2]):
        raise ModelInputError("features", f"{path} is damaged or another file; download it from {INCEPTION_URL}")
    return digest
