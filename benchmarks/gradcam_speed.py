"""What Grad-CAM costs: `python -m benchmarks.gradcam_speed`.

A batch of 32 CIFAR-sized images through ResNet164 on the CPU: the plain forward pass without gradients, our Grad-CAM
(with its search for the target layer) and that of the grad-cam package, in turn, in one process.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor, nn

from benchmarks.timing import interleaved
from dia_analysis import gradcam
from dia_models import create_model
from dia_models.training.device import keep_freed_memory


def plain(model: nn.Module, images: Tensor) -> Tensor:
    """The forward pass alone."""
    with torch.no_grad():
        output: Tensor = model(images)
    return output


def package(model: nn.Module, images: Tensor, layer: nn.Module) -> np.ndarray:
    """The package's map as it gives it, min-max scaled, for the predicted classes."""
    with GradCAM(model, [layer]) as cam:
        scaled: np.ndarray = cam(images, None)
    return scaled


def main() -> None:
    """Print the ratios beside what is promised, and how far the maps are apart."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--model", default="cifar_resnet164")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    model = create_model(arguments.model).eval().to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 32, 32).to(memory_format=torch.channels_last)
    ours = gradcam(model, images)
    layer = model.get_submodule(f"{ours.layer}.output")  # the package takes no tuple, which the block gives
    apart = np.abs(scale_cam_image(ours.maps) - package(model, images, layer)).max()
    functions: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(model, images),
        "ours": lambda: gradcam(model, images),
        "package": lambda: package(model, images, layer),
    }
    seconds = interleaved(functions, arguments.rounds)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {arguments.rounds} rounds")
    print({name: f"{1000 * value:.1f} ms" for name, value in seconds.items()})
    print(f"Grad-CAM / plain forward            {seconds['ours'] / seconds['plain']:.3f}  promised 1.3")
    print(f"the package's Grad-CAM / the same   {seconds['package'] / seconds['plain']:.3f}")
    print(f"largest difference of the two maps, scaled to 0..1: {apart:.1e}  promised 1e-5")


if __name__ == "__main__":
    main()
