"""dia-analyze capture: attention maps of many images into a Zarr store."""

from pathlib import Path
from typing import Literal

from cli.console import note, say, say_json
from cli.inputs import Inputs
from dia_analysis import write_store


def capture_to_store(
    inputs: Inputs,
    points: list[str] | None,
    path: Path,
    *,
    dtype: Literal["float16", "float32"],
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Capture, and print what is in the store."""
    store = write_store(
        path,
        inputs.model,
        lambda rows: inputs.located(rows, "capture"),
        inputs.image_list(),
        batch=inputs.batch_size,
        points=points,
        dtype=dtype,
        provenance=inputs.provenance(),
        resume=resume,
        overwrite=overwrite,
    )
    inputs.report_unreadable()
    if as_json:
        say_json(store.to_dict())
    else:
        say(f"{inputs.checkpoint.name} on {inputs.data}: the attention maps of its layers\n\n{store.summary()}")
    note(f"written to {path}/")
