"""Options that mean the same in every command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

CKPT = typer.Option("--ckpt", help="A checkpoint file, or the name of a bundled one.")
Ckpt = Annotated[str, CKPT]
Capture = Annotated[
    Path | None, typer.Option("--capture", help="Instead of a checkpoint, a store that dia-analyze capture wrote.")
]
Captures = Annotated[
    list[Path] | None,
    typer.Option("--capture", help="Instead, a store that dia-analyze capture wrote; several times."),
]
Ckpts = Annotated[
    list[str] | None, typer.Option("--ckpt", help="A checkpoint file or the name of a bundled one; several times.")
]
CkptsNeeded = Annotated[
    list[str], typer.Option("--ckpt", help="A checkpoint file or the name of a bundled one; several times.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A network with random weights, as dia-train models lists it; several times."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="A data set or folder:PATH; by default what the network was trained on."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data sets are; else $DIA_DATA_DIR, else the user's cache."),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is missing.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to; by default a new one in dia-out/.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="For everything that is drawn at random.")]
BatchSize = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Images at a time.")]
Workers = Annotated[int, typer.Option("-j", "--workers", min=1, help="Threads that decode image files.")]
Strict = Annotated[bool, typer.Option("--strict", help="An unreadable image is an error, not a warning.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: an option of the model or a field of the recipe."),
]


def check_source(ckpt: str | list[str] | None, capture: Path | list[Path] | None, of_ckpt: Mapping[str, Any]) -> None:
    """Refuse, as wrong usage, a command without a source of maps, or with two, or with options of the other one."""
    if bool(ckpt) == bool(capture):
        raise typer.BadParameter("give either a checkpoint or a store with --capture", param_hint="--ckpt")
    for option, value in of_ckpt.items() if capture else ():
        if value is not None:
            raise typer.BadParameter("not with --capture: the store's images and layers are taken", param_hint=option)
