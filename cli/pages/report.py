"""dia-analyze report: everything that the analyses find of some checkpoints, on one page."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cli.analyses import cost
from cli.analyses.gradients import beside_plain
from cli.common.attention import attention_of, known_trained
from cli.common.inputs import Inputs
from cli.common.networks import Candidate
from cli.common.options import DataOptions
from cli.common.publish import Out
from cli.pages.page import say_written, shown_if_lost, taken_page
from dia_analysis import count_parameters
from dia_analysis.results.words import quantity
from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.training.machine import in_words
from figures.pages.measured import Known
from figures.pages.report import measure_report
from figures.pages.report_page import ReportPage


def write_report(ckpts: Sequence[str], everyone: Sequence[Inputs], options: DataOptions, out: Out) -> None:
    """Analyse the networks and write the page; what came out is printed if it cannot be written."""
    images = everyone[0].images
    with taken_page(out, "report", everyone) as path:
        page = analyze_networks(ckpts, everyone, options)
        images.report_unreadable()
        with shown_if_lost(page.summary()):
            page.save(path, overwrite=out.overwrite)
    say_written(path, len(everyone), len(images), images.data)


def analyze_networks(ckpts: Sequence[str], everyone: Sequence[Inputs], options: DataOptions) -> ReportPage:
    """Run every analysis that the networks and the images allow."""
    networks = [Described(each.checkpoint, each.model, each.images) for each in everyone]
    return measure_report(
        networks,
        cost.subjects_of(
            [Candidate(each.name, ckpt) for each, ckpt in zip(everyone, ckpts, strict=True)],
            batch_size=options.batch_size,
            device=options.device,
            seed=options.seed,
        ),
        again=Again(tuple(ckpts), everyone[0].images.data, options),
        judge=lambda result: beside_plain(result).finding(),
        unreadable=everyone[0].images.source.unreadable,
    )


@dataclass(frozen=True)
class Again:
    """Writes the command lines that do an analysis again."""

    ckpts: tuple[str, ...]
    data: str
    options: DataOptions

    def __call__(self, command: str, places: Sequence[int], images: int | None, *more: str) -> str:
        """The command for the checkpoints in these places, on so many images of the data if it takes any."""
        words = ["dia-analyze", command, *(word for i in places for word in ("--ckpt", self.ckpts[i])), *more]
        if images is not None:
            words += ["--data", self.data, "--images", str(images)]
            words += ["--data-dir", str(self.options.data_dir)] if self.options.data_dir else []
        words += ["--device", self.options.device] if self.options.device != "auto" else []
        return shlex.join([*words, "--seed", str(self.options.seed), "-b", str(self.options.batch_size)])


@dataclass(frozen=True)
class Described(Inputs):
    """A checkpoint's network, and what the checkpoint says of itself."""

    @property
    def known(self) -> Known:
        """It, and what findings rest on."""
        info = self.checkpoint.info
        size, channels, attention = info.preprocessing, info.model.in_channels, attention_of(self)
        options = ", ".join(f"{key}={value}" for key, value in sorted(info.model.options.items()))
        facts = {
            "network": info.model.name,
            "options": options or "the defaults",
            "attention": attention,
            "parameters": f"{count_parameters(self.model):,}",
            "input": f"{size.height}x{size.width}, {quantity(channels, 'channel')}",
            "classes": str(len(info.classes)),
            "trained on": info.data,
            "training": _training(info),
            "precision in training": in_words(info.machine),
            "accuracy in the checkpoint": _metrics(info.metrics),
            "SHA-256 of the file": self.checkpoint.sha256,
        }
        made_from = info.model.model_dump(mode="json")
        about = (attention, self.recorded, known_trained(self), info.seed, made_from)
        return Known(facts, self.architecture, *about)


def _training(info: CheckpointInfo) -> str:
    epochs = [quantity(int(info.recipe["epochs"]), "epoch")] if "epochs" in info.recipe else []
    kept = [] if info.epoch is None else [f"kept after epoch {info.epoch}"]
    return ", ".join([f"recipe {info.recipe.get('name', 'not known')}", *epochs, *kept, f"seed {info.seed}"])


def _metrics(metrics: Mapping[str, float]) -> str:
    shown = (
        f"{name.replace('_', ' ')} {f'{100 * value:.2f} %' if 'accuracy' in name else f'{value:.3f}'}"
        for name, value in metrics.items()
    )
    return ", ".join(shown) or "none"
