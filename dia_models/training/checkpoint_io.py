"""Training states of Lightning: complete or absent, and read without executing anything in them."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from dia_models.errors import ModelInputError
from dia_models.training.files import save


class AtomicCheckpointIO(TorchCheckpointIO):
    """Training states are complete or absent."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write beside the target, then rename. Raises NotWrittenError."""
        assert storage_options is None
        content = io.BytesIO()  # torch.save to a file hides why it failed
        torch.save(checkpoint, content)
        save(Path(path), content.getvalue())

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """Read one, executing nothing in it. Raises ModelInputError for a damaged file."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return checkpoint
        except Exception as error:  # what a damaged file raises depends on where the damage is
            raise ModelInputError("resume", f"{path} is damaged; start again in another directory") from error
