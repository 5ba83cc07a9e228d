"""dia-train generate: images out of noise, and how far they are from real ones."""

from dataclasses import dataclass
from typing import Annotated

from cli.common import options as o
from cli.common.options import option
from cli.common.publish import Found, Out, about_networks

FEATURES = (
    "Also give the Fréchet distance to the training images in the features of a classifier (a path or a bundled name), "
    "or of inception: the FID."
)


@dataclass(frozen=True)
class GenerateOptions:
    """Which images to make, and how."""

    images: Annotated[int, o.how_many("")] = 64
    steps: Annotated[int, option("Sampling steps per image.", min=2)] = 50
    features: Annotated[str | None, option(FEATURES)] = None
    data_dir: o.DataDir = None
    device: o.Device = "auto"
    batch_size: o.BatchSize = 256
    seed: o.Seed = 0


def write_images(ckpt: str, given: GenerateOptions, out: Out) -> None:
    """Make the images, print what was made, and write them."""
    from cli.common.console import tracked
    from dia_models.checkpoints.names import read_named
    from dia_models.generation.generated import generate_images
    from dia_models.training.device import choose_device

    with out.folder("generate") as taken:
        [checkpoint] = read_named([ckpt])
        how = {key: value for key, value in vars(given).items() if key not in ("images", "device")}
        made = generate_images(checkpoint, given.images, device=choose_device(given.device), watch=tracked, **how)
        about = {**about_networks([checkpoint], checkpoint.info.data, given.seed), "steps": given.steps}
        out.publish(Found(about, made.to_dict(), made.summary(), made.write), taken)
