"""dia-analyze: look inside a trained network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import options as o
from cli.main import start

app = typer.Typer(
    name="dia-analyze",
    help="Look inside attention networks. Try: dia-analyze demo. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keep the commands' names, also while there is only one."""


@app.command()
def correlation(
    ckpt: Annotated[str | None, o.CKPT] = None,
    capture: o.Capture = None,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")] = None,
    points: Annotated[
        list[str] | None, typer.Option("--points", help="Modules to capture, such as 'layer*.se.gate'.")
    ] = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 128,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """How strongly do the attention maps of different layers correlate? (Fig. 2)"""
    o.check_source(ckpt, capture, {"--data": data, "--images": images, "--points": points, "--data-dir": data_dir})
    from cli.correlation import report, report_store
    from cli.inputs import open_inputs
    from dia_analysis.processes import joined

    with joined():
        if capture is not None:
            default = Path("dia-out") / f"correlation-{capture.stem}"
            report_store(capture, out or default, batch_size=batch_size, overwrite=overwrite, as_json=as_json)
            return
        assert ckpt is not None
        inputs = open_inputs(
            ckpt,
            data,
            images,
            data_dir=data_dir,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            seed=seed,
        )
        default = Path("dia-out") / f"correlation-{inputs.checkpoint.name}"
        report(inputs, points, out or default, overwrite=overwrite, as_json=as_json)


@app.command()
def capture(
    ckpt: o.Ckpt,
    data: o.Data = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")] = None,
    points: Annotated[
        list[str] | None, typer.Option("--points", help="Modules to capture, such as 'layer*.se.gate'.")
    ] = None,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option("--dtype", help="float16 halves the store and rounds the maps.")
    ] = "float32",
    out: Annotated[Path | None, typer.Option("--out", help="The store; by default a new one in dia-out/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the store after an interruption.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing store.")] = False,
    as_json: o.Json = False,
    data_dir: o.DataDir = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 128,
    workers: o.Workers = 2,
    strict: o.Strict = False,
) -> None:
    """Keep the attention maps of many images in a Zarr store, for the other commands' --capture and for xarray."""
    from cli.capture import capture_to_store
    from cli.inputs import open_inputs
    from dia_analysis.processes import joined

    with joined():
        inputs = open_inputs(
            ckpt,
            data,
            images,
            data_dir=data_dir,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            seed=seed,
        )
        path = out or Path("dia-out") / f"capture-{inputs.checkpoint.name}.zarr"
        capture_to_store(inputs, points, path, dtype=dtype, resume=resume, overwrite=overwrite, as_json=as_json)


@app.command()
def demo(out: o.Out = None, overwrite: o.Overwrite = False, device: o.Device = "auto", seed: o.Seed = 0) -> None:
    """Run the analyses on bundled networks and scikit-learn's digits; needs no data and trains nothing."""
    from cli.demo import run_demo

    run_demo(out or Path("dia-out") / "demo", overwrite=overwrite, device=device, seed=seed)


def main() -> None:
    """The command dia-analyze."""
    start(app)


if __name__ == "__main__":
    main()
