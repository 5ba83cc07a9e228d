"""dia-analyze report: everything that the analyses find of some checkpoints, on one page."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import fill

from cli.analyses import correlation, cost, gini, gradcam, gradients
from cli.analyses.trust import IMAGES as EXPLAINED
from cli.common.attention import attention_in, attention_of, has_attention
from cli.common.classes import class_numbers
from cli.common.console import note, say
from cli.common.images import MEASURED, Chosen, choose, labelled
from cli.common.inputs import Inputs
from cli.common.networks import Candidate
from cli.common.publish import Out
from cli.pages.page import shown_if_lost, taken_page, write_page
from cli.runs.predictions import Options
from dia_analysis import (
    AnalysisInputError,
    CostResult,
    GradientResult,
    NetworkGradients,
    count_parameters,
)
from dia_analysis import gradcam as map_of
from dia_analysis.explain.results import COARSE
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.paper.findings import Finding, cam_finding, cost_findings
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.provenance import versions
from dia_analysis.results.words import quantity
from dia_analysis.trust.heatmaps import HeatmapComparison
from dia_models import ModelInputError
from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.data import FileImages
from dia_models.training.machine import in_words
from figures.pages.report import QUESTIONS, SHOWN, Heatmaps, ReportPage, Section, Subject, report

ROUNDS = 10
WIDTH = 110


def write_report(ckpts: Sequence[str], everyone: Sequence[Inputs], options: Options, out: Out) -> None:
    """Analyse the networks and write the page; what came out is printed if it cannot be written."""
    first, names = everyone[0], [inputs.checkpoint.name for inputs in everyone]
    with taken_page(out, "report", names, first.data) as path:
        page = measure(ckpts, everyone, options)
        first.report_unreadable()
        html = report(page)
        with shown_if_lost(what_came_out(page)):
            write_page(path, html)
    size = path.stat().st_size / 1e6
    images = quantity(len(first.chosen), "image")
    say(f"{path}: {quantity(len(everyone), 'network')} on {images} of {first.data}, {size:.1f} MB")
    note("the page is one file and needs no network; open it in a browser")


def what_came_out(page: ReportPage) -> str:
    """The findings of every analysis."""
    return "\n\n".join(_told(question, getattr(page, name).findings) for name, question in QUESTIONS.items())


def _told(question: str, findings: Sequence[tuple[str, Finding]]) -> str:
    lines = [question]
    for name, finding in findings:
        text = f"{name}: {finding.text}" if name else finding.text
        lines += [fill(part, WIDTH) for part in (*text.splitlines(), finding.comparison())]
    return "\n".join(lines)


def measure(ckpts: Sequence[str], everyone: Sequence[Inputs], options: Options) -> ReportPage:
    """Run every analysis that the networks and the images allow."""
    first, again = everyone[0], Again(tuple(ckpts), everyone[0], options)
    return ReportPage(
        data=first.data,
        selection=first.provenance().selection or "",
        command=again("report", range(len(everyone)), len(first.chosen)),
        subjects=[subject(inputs) for inputs in everyone],
        correlation=correlations(everyone, again),
        gini=importances(everyone, again),
        gradients=gradients_of(everyone, again),
        gradcam=heatmaps(everyone, again),
        cost=costs(everyone, again),
        unreadable=dict(first.source.unreadable) if isinstance(first.source, FileImages) else {},
        versions=versions(),
        seed=first.seed,
    )


@dataclass(frozen=True)
class Again:
    """Writes the command lines that do an analysis again."""

    ckpts: tuple[str, ...]
    first: Inputs
    options: Options

    def __call__(self, command: str, places: Sequence[int], images: int | None, *more: str) -> str:
        """The command for the checkpoints in these places, on so many images of the data if it takes any."""
        words = ["dia-analyze", command, *(word for i in places for word in ("--ckpt", self.ckpts[i])), *more]
        if images is not None:
            words += ["--data", self.first.data, "--images", str(images)]
            words += ["--data-dir", str(self.options.data_dir)] if self.options.data_dir else []
        words += ["--device", self.options.device] if self.options.device != "auto" else []
        return shlex.join([*words, "--seed", str(self.first.seed), "-b", str(self.options.batch_size)])


def subject(inputs: Inputs) -> Subject:
    """What a checkpoint says of itself."""
    info = inputs.checkpoint.info
    size, channels = info.preprocessing, info.model.in_channels
    options = ", ".join(f"{key}={value}" for key, value in sorted(info.model.options.items()))
    facts = {
        "network": info.model.name,
        "options": options or "the defaults",
        "attention": attention_of(inputs),
        "parameters": f"{count_parameters(inputs.model):,}",
        "input": f"{size.height}x{size.width}, {quantity(channels, 'channel')}",
        "classes": str(len(info.classes)),
        "trained on": info.data,
        "training": _training(info),
        "precision in training": in_words(info.machine),
        "accuracy in the checkpoint": _metrics(info.metrics),
        "SHA-256 of the file": inputs.checkpoint.sha256,
    }
    return Subject(inputs.checkpoint.name, facts)


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


def correlations(everyone: Sequence[Inputs], again: Again) -> Section[Mapping[str, BesideUntrained]]:
    """Pearson r between the layers of every network with attention."""
    places, missing = _with_attention(everyone)
    results = {everyone[i].checkpoint.name: correlation.measure(everyone[i], None) for i in places}
    images = len(everyone[0].chosen)
    return Section(
        results or None,
        correlation.about(images),
        [again("correlation", [i], images) for i in places],
        named_findings(results),
        missing,
    )


def named_findings(results: Mapping[str, BesideUntrained]) -> list[tuple[str, Finding]]:
    """What came out for each network, with its name."""
    return [(name, outcome.finding()) for name, outcome in results.items()]


def importances(everyone: Sequence[Inputs], again: Again) -> Section[Mapping[str, GiniReadings]]:
    """Gini importance of the earlier layers in every network with attention."""
    places, missing = _with_attention(everyone)
    some, images = [everyone[i] for i in places], len(everyone[0].chosen)
    sources = [gini.of_network(each, None) for each in some]
    results = {each.name: gini.measure(each, each.name, rows="centred", seed=again.first.seed) for each in sources}
    return Section(
        results or None,
        gini.about(images),
        [again("gini", places, images)] if places else [],
        [("", gini.compare(results, sources).finding())] if results else [],
        missing,
    )


def _with_attention(everyone: Sequence[Inputs]) -> tuple[list[int], list[str]]:
    """The places of the networks with attention, and a sentence on each of the others."""
    places = [i for i, inputs in enumerate(everyone) if has_attention(inputs)]
    others = [inputs.checkpoint.name for i, inputs in enumerate(everyone) if i not in places]
    return places, [f"{name} has no attention, so there are no attention maps to look at." for name in others]


def gradients_of(everyone: Sequence[Inputs], again: Again) -> Section[GradientResult]:
    """The gradients of the trained networks, where the images have labels that they know."""
    images = min(len(everyone[0].chosen), MEASURED)
    found: dict[int, NetworkGradients] = {}
    missing = []
    for place, inputs in enumerate(everyone):
        try:
            found[place] = _gradient(inputs, again, place, images)
        except AnalysisInputError as error:
            missing.append(f"{inputs.checkpoint.name}: no gradients, because {error}.")
    result = GradientResult(tuple(found.values())) if found else None
    return Section(
        result,
        f"The gradient of the loss, summed over a batch, at each stage's output, for the trained networks on {images} "
        "labelled images, in training mode.",
        [again("gradients", list(found), images)] if found else [],
        [("", gradients.beside_plain(result).finding())] if result else [],
        missing,
    )


def _gradient(inputs: Inputs, again: Again, place: int, images: int) -> NetworkGradients:
    checkpoint = inputs.checkpoint
    try:
        class_numbers(inputs.source, checkpoint.info.classes, inputs.data)
    except ModelInputError as error:
        raise AnalysisInputError(error.argument, str(error)) from error
    shown = labelled(inputs, images, inputs.batch_size)
    candidate = Candidate(checkpoint.name, again.ckpts[place])
    return gradients.Measurement()([candidate], shown).networks[0]


def heatmaps(everyone: Sequence[Inputs], again: Again) -> Section[Heatmaps]:
    """What every network looks at in some images, and whether its maps can be trusted."""
    first = everyone[0]
    count = min(len(first.chosen), EXPLAINED)
    images = choose(first.data, first.source, count, first.seed)
    some, layers, explained, missing = [], {}, [], []
    for place, inputs in enumerate(everyone):
        shown = replace(inputs, chosen=images.chosen)
        try:
            layers[place] = fine_layer(shown)
            explained.append(gradcam.explain(shown, images, gradcam.Explanation(layer=layers[place]), True))
            some.append(shown)
        except AnalysisInputError as error:
            layers.pop(place, None)
            name = inputs.checkpoint.name
            missing.append(f"{name}: no maps, because {str(error).removeprefix(f'{name}: ')}.")
    result = None if not some else as_heatmaps(gradcam.compare(some, explained, images), images)
    return Section(
        result,
        f"Grad-CAM of {count} images for the class that each network predicts, the first {min(count, SHOWN)} drawn, "
        "and three checks of whether the maps can be trusted.",
        [_explained_again(again, layers, layer, count) for layer in dict.fromkeys(layers.values())],
        [("", cam_finding(result.results, result.checks, result.agreements))] if result else [],
        missing,
    )


def _explained_again(again: Again, layers: Mapping[int, str | None], layer: str | None, count: int) -> str:
    """The command for the networks that were explained at this layer."""
    places = [place for place, own in layers.items() if own == layer]
    return again("gradcam", places, count, "--trust", *(() if layer is None else ("--layer", layer)))


def fine_layer(inputs: Inputs) -> str | None:
    """The layer to explain: None, which is the default, unless its maps are too coarse for small images.

    Then it is the last block of the last stage whose maps have 16 positions, if there is one.
    """
    image = next(iter(replace(inputs, chosen=inputs.chosen[:1]).batches(inputs.checkpoint.name)))
    if map_of(inputs.model, image).layer_maps[0].size >= COARSE:
        return None
    for layer in reversed(_last_blocks(inputs)):
        if map_of(inputs.model, image, layer=layer).layer_maps[0].size >= COARSE:
            return layer
    return None


def _last_blocks(inputs: Inputs) -> list[str]:
    """The names of the last blocks of a residual network's stages."""
    blocks = [name for name, _ in inputs.model.named_modules() if name.split(".")[::2] == ["stages", "blocks"]]
    blocks = [name for name in blocks if name.count(".") == 3]
    return list({name.split(".")[1]: name for name in blocks}.values())


def as_heatmaps(outcome: HeatmapComparison, images: Chosen) -> Heatmaps:
    """What the page shows of it."""
    size, trust = max(result.size for result in outcome.results), outcome.trust
    return Heatmaps(
        results=outcome.results,
        pictures=next(images.pictures(size, SHOWN)),
        labels=outcome.labels,
        checks=None if trust is None else trust.checks,
        agreements=() if trust is None else trust.agreements,
        checked=0 if trust is None else trust.num_images,
    )


def costs(everyone: Sequence[Inputs], again: Again) -> Section[CostResult]:
    """What every network costs beside its backbone without attention."""
    names = [inputs.checkpoint.name for inputs in everyone]
    compared = [Candidate(name, ckpt) for name, ckpt in zip(names, again.ckpts, strict=True)]
    options, seed = again.options, again.first.seed
    result = cost.measure(compared, batch_size=options.batch_size, rounds=ROUNDS, device=options.device, seed=seed)
    attention = attention_in(everyone)
    without = [name for name, kind in attention.items() if kind in ("none", "self-attention")]
    return Section(
        result,
        cost.about(result),
        [again("cost", range(len(everyone)), None, "--rounds", str(ROUNDS))],
        [("", finding) for finding in cost_findings(result, attention)],
        [f"{name} has no attention module to leave out, so it is its own backbone." for name in without],
    )
