"""dia-analyze demo: the analyses on bundled networks and data, with a plain account of what came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.analyses import correlation, cost, gini, gradcam, gradients
from cli.common.attention import attention_in
from cli.common.console import say
from cli.common.images import EXPLAINED, Selection, open_labelled, open_networks
from cli.common.inputs import Inputs, open_inputs
from cli.common.networks import Candidate, candidates
from cli.common.publish import Found, Out
from cli.pages.page import write_page
from cli.pages.report import Again, as_heatmaps, named_findings, subject, what_came_out
from cli.runs.predictions import Options
from dia_analysis import CostResult, GradientResult
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.paper.findings import cam_finding, cost_findings
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.output import new_directory
from dia_analysis.results.provenance import versions
from figures.pages.report import Heatmaps, ReportPage, Section, report

DATA = "digits"
TABLES, PAGE = "tables.txt", "report.html"
NETWORKS = ("digits-resnet56-se", "digits-resnet56-dia-lstm")
WITHOUT_SKIP = ("cifar_resnet56", "cifar_resnet56_dia_lstm")
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
        say(f"{INTRODUCTION}\n{what_came_out(page)}")
        with taken.filled({"data": DATA, "seed": seed, "versions": versions()}) as folder:
            demo.write(folder)
            write_page(folder / PAGE, report(page))
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
        everyone = [self._inputs(name, None) for name in NETWORKS]
        again = Again(NETWORKS, everyone[0], Options(None, False, self.device, 128, 1, False))
        return ReportPage(
            data=DATA,
            selection=everyone[0].provenance().selection or "",
            command="dia-analyze demo",
            subjects=[subject(inputs) for inputs in everyone],
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

    def _correlation(self, everyone: Sequence[Inputs], again: Again) -> Section[Mapping[str, BesideUntrained]]:
        results = {}
        for inputs in everyone:
            name = inputs.checkpoint.name
            results[name] = correlation.measure(inputs, None)
            self.parts[name] = correlation.found(results[name], inputs.names())
        images = len(everyone[0].chosen)
        commands = [again("correlation", [place], images) for place in range(len(everyone))]
        return Section(results, correlation.about(images), commands, named_findings(results))

    def _gini(self, again: Again) -> Section[Mapping[str, GiniReadings]]:
        sources = [gini.of_network(self._inputs(name, GINI_IMAGES), None) for name in NETWORKS]
        results = {  # the finding says nothing of the untrained networks' centred rows
            source.name: gini.measure(source, source.name, rows="centred", seed=self.seed, untrained=["vector"])
            for source in sources
        }
        self.parts["gini"] = gini.found(results, sources)
        findings = [("", gini.compare(results, sources).finding())]
        return Section(results, gini.about(GINI_IMAGES), [again("gini", [0, 1], GINI_IMAGES)], findings)

    def _gradients(self) -> Section[GradientResult]:
        images = open_labelled(
            DATA,
            None,
            GRADIENT_IMAGES,
            data_dir=None,
            image_size=None,
            device=self.device,
            batch_size=GRADIENT_IMAGES,
            workers=1,
            strict=False,
            seed=self.seed,
        )
        compared = candidates((), WITHOUT_SKIP, ("skip=false",))
        result = gradients.Measurement()(compared, images)
        self.parts["gradients"] = gradients.found(result, images)
        about = (
            "The gradient of the loss, summed over a batch, at each stage's output of two other networks, which have "
            f"random weights (from {gradients.DRAWS} seeds) and no skip connections, on {GRADIENT_IMAGES} images in "
            "one batch, in training mode."
        )
        models = " ".join(f"--model {name}" for name in WITHOUT_SKIP)
        command = f"dia-analyze gradients {models} --set skip=false --data {DATA} --images {GRADIENT_IMAGES}"
        return Section(
            result,
            about,
            [f"{command} --seed {self.seed}"],
            [("Untrained networks without skip connections", gradients.beside_plain(result).finding())],
        )

    def _gradcam(self, again: Again) -> Section[Heatmaps]:
        selection = Selection((), DATA, CAM_IMAGES, None, 1, False)
        everyone, images = open_networks(NETWORKS, selection, device=self.device, batch_size=32, seed=self.seed)
        outcome = gradcam.explain_all(everyone, images, gradcam.Explanation(layer=LAYER), trust=False)
        self.parts["gradcam"] = gradcam.found(outcome, images)
        heatmaps = as_heatmaps(outcome, images)
        return Section(
            heatmaps,
            f"Grad-CAM of {CAM_IMAGES} images for the class that each network predicts.",
            [again("gradcam", [0, 1], CAM_IMAGES, "--trust", "--layer", LAYER)],
            [("", cam_finding(heatmaps.results, heatmaps.checks))],
        )

    def _cost(self, everyone: Sequence[Inputs], again: Again) -> Section[CostResult]:
        result = cost.measure(
            [Candidate(name, name) for name in NETWORKS],
            batch_size=again.options.batch_size,
            rounds=ROUNDS,
            device=self.device,
            seed=self.seed,
        )
        findings = [("", finding) for finding in cost_findings(result, attention_in(everyone))]
        return Section(result, cost.about(result), [again("cost", [0, 1], None, "--rounds", str(ROUNDS))], findings)

    def _inputs(self, name: str, images: int | None) -> Inputs:
        return open_inputs(
            name,
            DATA,
            images,
            data_dir=None,
            device=self.device,
            batch_size=128,
            workers=1,
            strict=False,
            seed=self.seed,
        )
