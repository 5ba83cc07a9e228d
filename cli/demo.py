"""dia-analyze demo: the analyses on bundled networks and data, with a plain account of what came out."""

from pathlib import Path

from cli.console import say
from cli.correlation import report
from cli.inputs import open_inputs
from dia_analysis.output import check_free

NETWORKS = ("digits-resnet56-se", "digits-resnet56-dia-lstm")
NEXT = """What next
  Real images:        dia-analyze correlation --ckpt cifar10-resnet29-se --data cifar10 --data-dir FOLDER
  Your own images:    dia-analyze correlation --ckpt cifar10-resnet29-se --data folder:PATH
  Your own network:   dia-train fit --model cifar_resnet29_dia_se --data folder:PATH --image-size 32
  Any torch network:  from dia_analysis import correlate_layers; print(correlate_layers(model, batches).summary())"""


def run_demo(out: Path, *, overwrite: bool, device: str, seed: int) -> None:
    """Correlate the attention maps of two networks trained on digits: individual modules and DIA-LSTM."""
    for name in NETWORKS:
        check_free(out / name, overwrite)
    means = {}
    for name in NETWORKS:
        inputs = open_inputs(
            name,
            "digits",
            None,
            data_dir=None,
            device=device,
            batch_size=128,
            workers=1,
            strict=False,
            seed=seed,
        )
        outcome = report(inputs, None, out / name, overwrite=overwrite, as_json=False)
        means[name] = outcome.trained.mean_r
        say()
    individual, shared = (means[name] for name in NETWORKS)
    assert individual is not None
    assert shared is not None
    say(
        f"With one squeeze-excitation module per layer, the maps of two layers correlate at {individual:.2f} on "
        f"average;\nwith one LSTM shared by a stage's layers (DIA-LSTM), at {shared:.2f}.\n\n{NEXT}"
    )
