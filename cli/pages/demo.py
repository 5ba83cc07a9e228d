"""dia-analyze demo: the analyses on bundled networks and data, with a plain account of what came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cli.analyses import correlation, cost, gini, gradcam, gradients
from cli.analyses.gradients import beside_plain
from cli.common.console import say
from cli.common.images import EXPLAINED, select_labelled
from cli.common.inputs import open_networks
from cli.common.networks import Candidate, candidates
from cli.common.options import DataOptions, Explanation, NetworkOptions
from cli.common.publish import Found, Out
from cli.pages.report import Again, Described
from dia_analysis import CostResult, GradientResult
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.paper.findings import cam_finding
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.output import new_directory
from dia_analysis.results.provenance import versions
from figures.pages import measured
from figures.pages.report_page import SHOWN, Facts, Heatmaps, ReportPage, Section

T = TypeVar("T")
DATA = "digits"
TABLES, PAGE = "tables.txt", "report.html"
NETWORKS = ["digits-resnet56-se", "digits-resnet56-dia-lstm"]
WITHOUT_SKIP = ["cifar_resnet56", "cifar_resnet56_dia_lstm"]
GINI_IMAGES, GRADIENT_IMAGES, CAM_IMAGES, ROUNDS = 60, 120, EXPLAINED, 6
LAYER = "stages.1.blocks.5"  # whose maps are 4x4; the last block's are 2x2
INTRODUCTION = """Two networks trained on 8x8 digits: one squeeze-excitation module per layer (SE), and one LSTM per
stage that all its layers share (DIA-LSTM).
"""
NEXT = """What next
  Real images:        dia-analyze correlation --ckpt cifar10-resnet29-se --data cifar10 --data-dir FOLDER
  Your own images:    dia-analyze gradcam --ckpt cifar10-resnet29-se IMAGE...
  Your own network:   dia-train fit --model cifar_resnet29_dia_se --data folder:PATH --image-size 32
  Everything at once: dia-analyze report --ckpt RUN/model.safetensors
  Any torch network:  from dia_analysis import measure_correlation; print(measure_correlation(...).summary())"""


def run_demo(out: Out, *, device: str, seed: int) -> None:
    """Analyse two networks trained on digits, one module per layer and DIA-LSTM; the tables and a page go to files."""
    with out.folder("demo") as taken:
        demo = Demo(device, seed)
        page = demo.run()
        say(f"{INTRODUCTION}\n{page.summary()}")
        with taken.filled({"data": DATA, "seed": seed, "versions": versions()}) as folder:
            demo.write(folder)
            page.save(folder / PAGE)
    place = taken.path
    say(f"\nFigures and numbers are in {place}/, the tables in {place / TABLES}; {place / PAGE} shows it all.")
    say(f"\n{NEXT}")


@dataclass(frozen=True)
class Demo:
    """The analyses; `parts` holds what each found, by the folder that it is to have."""

    device: str
    seed: int
    parts: dict[str, Found] = field(default_factory=dict)

    def run(self) -> ReportPage:
        """Run them all."""
        everyone = self._networks(None)
        again = Again(tuple(NETWORKS), DATA, self._options(None))
        return ReportPage(
            data=DATA,
            selection=everyone[0].images.selection,
            command="dia-analyze demo",
            subjects=[Facts(each.name, each.known.facts) for each in everyone],
            correlation=self._correlation(everyone, again),
            gini=self._gini(again),
            gradients=self._gradients(),
            gradcam=self._gradcam(again),
            cost=self._cost(everyone, again),
            unreadable={},
            versions=versions(),
            seed=self.seed,
        )

    def write(self, folder: Path) -> None:
        """Write what each analysis writes by itself, and all tables."""
        for name, found in self.parts.items():
            with new_directory(folder / name, found.about) as part:
                found.write(part)
        (folder / TABLES).write_text("\n".join(found.text for found in self.parts.values()) + "\n", encoding="utf-8")

    def _correlation(self, everyone: Sequence[Described], again: Again) -> Section[Mapping[str, BesideUntrained]]:
        section = measured.correlations(everyone, again)
        for each in everyone:
            self.parts[each.name] = correlation.found(_found(section)[each.name], each.images.names())
        return section

    def _gini(self, again: Again) -> Section[Mapping[str, GiniReadings]]:
        some = self._networks(GINI_IMAGES)
        section = measured.importances(some, again, ["vector"])  # the finding says nothing of the others' centred rows
        self.parts["gini"] = gini.found(_found(section), [gini.of_network(each, None) for each in some])
        return section

    def _gradients(self) -> Section[GradientResult]:
        images, fresh = select_labelled(self._options(GRADIENT_IMAGES), None)
        compared = candidates(NetworkOptions(models=WITHOUT_SKIP, changes=["skip=false"]))
        result = gradients.Measurement(fresh=fresh)(compared, images)
        self.parts["gradients"] = gradients.found(result, images)
        about = (
            "The gradient of the loss, summed over a batch, at each stage's output of two other networks, which have "
            f"random weights (from {gradients.DRAWS} seeds) and no skip connections, on {GRADIENT_IMAGES} images in "
            "one batch, in training mode."
        )
        models = " ".join(f"--model {name}" for name in WITHOUT_SKIP)
        command = f"dia-analyze gradients {models} --set skip=false --data {DATA} --images {GRADIENT_IMAGES}"
        findings = [("Untrained networks without skip connections", beside_plain(result).finding())]
        return Section(result, about, [f"{command} --seed {self.seed}"], findings)

    def _gradcam(self, again: Again) -> Section[Heatmaps]:
        everyone = self._networks(CAM_IMAGES)
        images = everyone[0].images
        outcome = gradcam.explain_all(everyone, Explanation(layer=LAYER), trust=False)
        self.parts["gradcam"] = gradcam.found(outcome, images)
        size = max(result.size for result in outcome.results)
        shown = next(images.pictures(size, SHOWN))
        return Section(
            Heatmaps(outcome.results, shown, outcome.labels, checks=None, agreements=(), checked=0),
            f"Grad-CAM of {CAM_IMAGES} images for the class that each network predicts.",
            [again("gradcam", [0, 1], CAM_IMAGES, "--trust", "--layer", LAYER)],
            [("", cam_finding(outcome.results, None))],
        )

    def _cost(self, everyone: Sequence[Described], again: Again) -> Section[CostResult]:
        compared = [Candidate(name, name) for name in NETWORKS]
        subjects = cost.subjects_of(compared, batch_size=128, device=self.device, seed=self.seed)
        return measured.costs(everyone, subjects, again, ROUNDS)

    def _networks(self, images: int | None) -> list[Described]:
        opened = open_networks(NETWORKS, self._options(images))
        return [Described(each.checkpoint, each.model, each.images) for each in opened]

    def _options(self, images: int | None) -> DataOptions:
        return DataOptions(DATA, images, device=self.device, seed=self.seed, batch_size=128, workers=1)


def _found(section: Section[T]) -> T:
    assert section.result is not None
    return section.result
