"""dia-analyze capture: attention maps of many images into a Zarr store."""

from pathlib import Path
from typing import Literal

from cli.common.console import note, show
from cli.common.inputs import Inputs
from cli.common.publish import Out, default_name
from dia_analysis import AnalysisInputError, CaptureStore, write_store
from dia_analysis.results.output import first_free


def capture_to_store(
    inputs: Inputs, points: list[str] | None, out: Out, *, dtype: Literal["float16", "float32"], resume: bool
) -> None:
    """Capture, and print what is in the store."""

    def write(path: Path) -> CaptureStore:
        before = _number(path)
        try:
            return write_store(
                path,
                inputs.model,
                lambda rows: inputs.located(rows, "capture"),
                inputs.images.image_list(),
                batch=inputs.images.batch_size,
                points=points,
                dtype=dtype,
                provenance=inputs.provenance(),
                resume=resume,
                overwrite=out.overwrite,
            )
        except AnalysisInputError as error:
            if error.argument != "capture":
                raise
            raise AnalysisInputError("out", str(error)) from error  # which gives the store here
        except KeyboardInterrupt as interrupt:
            begun = path.exists() and (resume or _number(path) != before)
            kept = f"what is captured is kept in {path}; to continue, run it again with --resume --out {path}"
            raise KeyboardInterrupt(kept if begun else f"nothing was written to {path}") from interrupt

    name = default_name("capture", [inputs.name], inputs.images.data)
    store = first_free(out.paths(name, ".zarr", continued=resume), write)
    inputs.images.report_unreadable()
    head = f"{inputs.name} on {inputs.images.data}: the attention maps of its layers"
    show(out.as_json, store.to_dict, lambda: f"{head}\n\n{store.summary()}")
    note(f"written to {store.path}/")


def _number(path: Path) -> int | None:
    """What tells a store from the one that it replaces."""
    return path.stat().st_ino if path.exists() else None
