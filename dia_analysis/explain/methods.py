"""How features and gradients become a map: Grad-CAM here, its relatives from the grad-cam package."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.layer_gradient import Explained
from dia_analysis.explain.rolled import SOURCES

# The package's methods that need features and gradients only, and not hundreds of further passes.
PACKAGE = {
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "xgradcam": "XGradCAM",
    "gradcamelementwise": "GradCAMElementWise",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "segeigencam": "SegEigenCAM",
    "kpcacam": "KPCA_CAM",
    "fem": "FEM",
}
GRADCAM = "gradcam"
Method = Callable[[Explained], Float[Tensor, "image row column"]]


def method_names() -> list[str]:
    """The methods known by name."""
    return [GRADCAM, *PACKAGE, *SOURCES]


def cam_method(name: str) -> Method:
    """A function from features and gradients to signed maps. Raises AnalysisInputError for an unknown name."""
    if name == GRADCAM:
        return grad_cam
    if name not in PACKAGE:
        raise AnalysisInputError("method", f"unknown method {name!r}; accepted: {', '.join(method_names())}")
    return _from_package(PACKAGE[name])


def method_source(name: str) -> str:
    """Whose formula it is."""
    if name in SOURCES:
        return SOURCES[name]
    return "Selvaraju et al. 2017" if name == GRADCAM else f"grad-cam {version('grad-cam')}"


def grad_cam(explained: Explained) -> Float[Tensor, "image row column"]:
    """The features summed over channels, each weighted by its mean gradient (Selvaraju et al. 2017, before ReLU)."""
    weights = explained.gradient.float().mean((2, 3))
    return torch.einsum("nc,nchw->nhw", weights, explained.features.float())


def _from_package(class_name: str) -> Method:
    import pytorch_grad_cam

    # The class wants a network when it is made; these methods never look at it, so it gets a parameter by itself.
    method: Any = getattr(pytorch_grad_cam, class_name)(torch.nn.ParameterList([torch.zeros(1)]), [])

    def signed(explained: Explained) -> Float[Tensor, "image row column"]:
        features, gradient = (t.float().cpu().numpy() for t in (explained.features, explained.gradient))
        maps = method.get_cam_image(None, None, None, features, gradient, eigen_smooth=False)
        return torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))

    return signed
