"""dia-analyze gradcam: what checkpoints look at, side by side, and whether their heatmaps can be trusted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

import figures
from cli.grey import warn_of_colour
from cli.inputs import Inputs, make_inputs
from cli.naming import file_name, read_named
from cli.publishing import Found, Out
from cli.trust import IMAGES as TRUST_IMAGES
from cli.trust import Trust, agreements, check_maps
from dia_analysis import AnalysisInputError, GradCAMResult, TrustChecks, gradcam
from dia_analysis.explain.results import labelled, side_by_side, summarise
from dia_analysis.output import write_json
from dia_models import Checkpoint, ModelInputError
from dia_models.data import FileImages, ImageSource, evenly_spaced, open_data, open_files
from figures.gradcam import ROWS, shared_peak

IMAGES = 4
LARGEST_MAPS = 2 * 2**30


@dataclass(frozen=True)
class Chosen:
    """The images to explain: those of `source` at the indices `chosen`. `selection` says how they were chosen."""

    data: str
    source: ImageSource
    chosen: list[int]
    selection: str
    named: bool

    def readable(self) -> list[int]:
        """The indices of the chosen images that are not known to be unreadable."""
        unreadable = self.source.unreadable if isinstance(self.source, FileImages) else {}
        return [index for index in self.chosen if self.source.name(index) not in unreadable]

    def paths(self) -> tuple[str, ...]:
        """The readable images' names: the path where images were named, else as the data set calls them."""
        if self.named and isinstance(self.source, FileImages):
            return tuple(str(self.source.paths[index]) for index in self.readable())
        return tuple(self.source.name(index) for index in self.readable())

    def labels(self) -> tuple[str | None, ...]:
        """The readable images' classes in the data set."""
        numbers = [int(self.source.labels[index]) for index in self.readable()]
        return tuple(self.source.classes[number] if number >= 0 else None for number in numbers)

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """The readable images in colour, `count` at a time: (image, height, width, 3) bytes."""
        for batch in self.source.batches(self.readable(), count, size, 3):
            yield batch.pixels.numpy()

    def blamed(self, error: ModelInputError) -> ModelInputError:
        """An error on reading an image, naming where it was given."""
        return ModelInputError("IMAGES" if self.named else error.argument, str(error))


def choose(data: str, source: ImageSource, count: int, seed: int) -> Chosen:
    """So many images of a data set, at equal distances."""
    chosen = evenly_spaced(count, len(source))
    Random(seed).shuffle(chosen)  # so that the first few are of several classes
    selection = f"{count} of {len(source)} images at equal distances, in random order"
    return Chosen(data, source, chosen, selection, named=False)


@dataclass(frozen=True)
class Selection:
    """Which images: files and folders, or `images` of a data set."""

    paths: Sequence[Path]
    data: str | None
    images: int | None
    data_dir: Path | None
    workers: int
    strict: bool
    download: bool = False

    def open(self, default: str, seed: int) -> Chosen:
        """Find them. Raises ModelInputError if they do not exist or both ways of choosing are used."""
        if self.paths:
            return self._named()
        data = self.data or default
        source = open_data(data, "any", self.data_dir, workers=self.workers, strict=self.strict, download=self.download)
        count = self.images or min(IMAGES, len(source))
        if count > len(source):
            raise ModelInputError(
                "images", f"{count} images asked for, {data} has {len(source)}; give at most that many"
            )
        return choose(data, source, count, seed)

    def _named(self) -> Chosen:
        for option, value in (("data", self.data), ("images", self.images)):
            if value is not None:
                raise ModelInputError(option, f"{value} given beside images named one by one; give one or the other")
        try:
            source = open_files(self.paths, workers=self.workers, strict=self.strict)
        except ModelInputError as error:
            raise ModelInputError("IMAGES", str(error)) from error
        chosen = list(range(len(source)))
        return Chosen("files", source, chosen, f"{len(chosen)} images, named one by one", named=True)


@dataclass(frozen=True)
class Explanation:
    """What to explain, and how; as `dia_analysis.explain.gradcam` takes it."""

    target: str | None = None
    layer: str | None = None
    call: int | None = None
    method: str = "gradcam"

    def options(self) -> dict[str, Any]:
        """The options of the functions that make maps."""
        return {"layer": self.layer, "call": self.call, "method": self.method}


@dataclass(frozen=True)
class Outcome:
    """The maps of all networks for the images that could be read, and the checks if they were asked for."""

    results: tuple[GradCAMResult, ...]
    labels: tuple[str | None, ...]
    trust: Trust | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.gradcam/1, with the images' labels and the checks besides."""
        document = side_by_side(self.results)
        for image, label in zip(document["images"], self.labels, strict=True):
            image["label"] = label
        return document if self.trust is None else {**document, "trust": self.trust.to_dict()}

    def text(self) -> str:
        """The table of scores and what the checks found."""
        scores = summarise(self.results, self.labels)
        return scores if self.trust is None else f"{scores}\n\n{self.trust.text()}"

    def found(self, images: Chosen) -> Found:
        """What to print and to write."""
        return Found(_about(self), self.to_dict(), self.text(), lambda folder: _write(self, images, folder))


def report(
    ckpts: Sequence[str],
    selection: Selection,
    explanation: Explanation,
    *,
    trust: bool,
    device: str,
    batch_size: int,
    seed: int,
    out: Out,
    as_json: bool,
) -> None:
    """Explain the images with every checkpoint, print the table or the JSON document, and write everything."""
    everyone, images = open_networks(ckpts, selection, device=device, batch_size=batch_size, seed=seed)
    with out.folder("gradcam", [each.checkpoint.name for each in everyone], images.data) as taken:
        explain_all(everyone, images, explanation, trust).found(images).publish(taken, as_json=as_json)


def open_networks(
    ckpts: Sequence[str], selection: Selection, *, device: str, batch_size: int, seed: int
) -> tuple[list[Inputs], Chosen]:
    """The networks and the images that they are to explain."""
    checkpoints = read_named(ckpts)
    images = selection.open(checkpoints[0].info.data, seed)
    _check_size(images, checkpoints)
    warn_of_colour(checkpoints, images.source, images.chosen)
    shared: Any = {"device": device, "batch_size": batch_size, "seed": seed}
    return [make_inputs(c, images.data, images.source, images.chosen, **shared) for c in checkpoints], images


def _check_size(images: Chosen, checkpoints: Sequence[Checkpoint]) -> None:
    pixels = max(c.info.preprocessing.height * c.info.preprocessing.width for c in checkpoints)
    need = 4 * pixels * len(images.chosen) * len(checkpoints)
    if need > LARGEST_MAPS:
        raise ModelInputError(
            "images",
            f"the maps of {len(images.chosen)} images would take {need / 2**30:.1f} GiB; at most 2 are written, so "
            "give fewer, or use dia_analysis.stream_gradcam",
        )


def explain_all(everyone: Sequence[Inputs], images: Chosen, explanation: Explanation, trust: bool) -> Outcome:
    """The maps of every network for the same images, and whether they can be trusted if that is asked for."""
    explained = [explain(inputs, images, explanation, trust) for inputs in everyone]
    everyone[0].report_unreadable()
    return gathered(everyone, explained, images)


def gathered(
    everyone: Sequence[Inputs], explained: Sequence[tuple[GradCAMResult, TrustChecks | None]], images: Chosen
) -> Outcome:
    """What came out for every network, together; with the checks of trust if they were made."""
    results, labels = [result for result, _ in explained], images.labels()
    checks = tuple(check for _, check in explained if check is not None)
    checked = Trust(min(TRUST_IMAGES, len(labels)), checks, agreements(everyone, results)) if checks else None
    return Outcome(tuple(results), labels, checked)


def explain(
    inputs: Inputs, images: Chosen, explanation: Explanation, trust: bool
) -> tuple[GradCAMResult, TrustChecks | None]:
    """One network's maps of the images, and the checks of whether they can be trusted if that is asked for."""
    try:
        result = _explain(inputs, images, explanation)
        checks = check_maps(inputs, images.readable(), result, explanation.options()) if trust else None
        return result, checks
    except AnalysisInputError as error:
        argument = "ckpt" if error.argument == "model" else error.argument
        raise AnalysisInputError(argument, f"{inputs.checkpoint.name}: {error}") from error
    except ModelInputError as error:
        raise images.blamed(error) from error


def _explain(inputs: Inputs, images: Chosen, explanation: Explanation) -> GradCAMResult:
    name = inputs.checkpoint.name
    result = gradcam(
        inputs.model,
        inputs.batches(name),
        target=explanation.target,
        classes=inputs.checkpoint.info.classes,
        name=name,
        provenance=replace(inputs.provenance(), selection=images.selection),
        **explanation.options(),
    )
    return replace(result, images=images.paths())


def _about(outcome: Outcome) -> dict[str, Any]:
    first = outcome.results[0].provenance.to_dict()
    shared = {key: first[key] for key in ("data", "selection", "seed", "versions")}
    models = [
        {"name": r.name, "checkpoint_sha256": r.provenance.checkpoint_sha256, "layer": r.layer, "call": r.call}
        for r in outcome.results
    ]
    return {**shared, "models": models}


def _write(outcome: Outcome, images: Chosen, folder: Path) -> None:
    results = outcome.results
    write_json(folder / "gradcam.json", outcome.to_dict())
    labelled(results).to_netcdf(folder / "maps.nc", engine="scipy")
    size = max(result.size for result in results)
    first = next(images.pictures(size, ROWS))
    names = zip(images.paths(), outcome.labels, strict=True)
    captions = [f"{Path(path).name}\n({label})" if label else Path(path).name for path, label in names]
    figures.save_figure(figures.heatmaps(results, first, captions), folder / "fig9-gradcam")
    _write_overlays(results, images, size, folder / "overlays")
    if outcome.trust is not None:
        outcome.trust.write(folder)


def _write_overlays(results: Sequence[GradCAMResult], images: Chosen, size: tuple[int, int], folder: Path) -> None:
    """One PNG per image and network, all on one colour scale (the figure's, if that shows all images)."""
    folder.mkdir()
    peak, number = shared_peak(results), 0
    for pictures in images.pictures(size, 64):
        for picture in pictures:
            stem = f"{number + 1:03d}-{file_name(Path(results[0].images[number]).stem)}"
            for result in results:
                drawn = Image.fromarray(figures.overlay(picture, result.layer_maps[number], peak))
                drawn.save(folder / f"{stem}-{file_name(result.name)}.png")
            number += 1
