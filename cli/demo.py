"""dia-analyze demo: the analyses on bundled networks and data, with a plain account of what came out."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import fill

from cli import correlation, cost, gini, gradcam, gradients
from cli.attention import attention_in
from cli.console import say
from cli.gradient_pairs import finding as gradient_finding
from cli.inputs import Inputs, open_inputs
from cli.networks import Candidate, candidates
from cli.page import check_page, write_page
from cli.report import Again, as_heatmaps, named_findings, subject
from cli.testing import Options
from dia_analysis import CostResult, GradientResult
from dia_analysis.beside_untrained import BesideUntrained
from dia_analysis.findings import Finding, cam_finding, cost_findings
from dia_analysis.gini_readings import GiniReadings
from dia_analysis.output import check_free
from dia_analysis.provenance import versions
from figures.report import QUESTIONS, Heatmaps, ReportPage, Section, report

DATA = "digits"
TABLES, PAGE = "tables.txt", "report.html"
NETWORKS = ("digits-resnet56-se", "digits-resnet56-dia-lstm")
WITHOUT_SKIP = ("cifar_resnet56", "cifar_resnet56_dia_lstm")
GINI_IMAGES, GRADIENT_IMAGES, CAM_IMAGES, ROUNDS = 60, 120, gradcam.IMAGES, 5
LAYER = "stages.1.blocks.5"  # whose maps are 4x4; the last block's are 2x2
WIDTH = 110
INTRODUCTION = """Two networks trained on 8x8 digits: one squeeze-excitation module per layer (SE), and one LSTM per
stage that all its layers share (DIA-LSTM).
"""
NEXT = """What next
  Real images:        dia-analyze correlation --ckpt cifar10-resnet29-se --data cifar10 --data-dir FOLDER
  Your own images:    dia-analyze gradcam --ckpt cifar10-resnet29-se IMAGE...
  Your own network:   dia-train fit --model cifar_resnet29_dia_se --data folder:PATH --image-size 32
  Everything at once: dia-analyze report --ckpt RUN/model.safetensors
  Any torch network:  from dia_analysis import correlate_layers; print(correlate_layers(model, batches).summary())"""


def run_demo(out: Path, *, overwrite: bool, device: str, seed: int) -> None:
    """Analyse two networks trained on digits, one module per layer and DIA-LSTM; the tables and a page go to files."""
    demo = Demo(out, overwrite, device, seed)
    for name in (*NETWORKS, "gini", "gradients", "gradcam"):
        check_free(out / name, overwrite)
    check_page(out / PAGE, overwrite)
    with redirect_stdout(StringIO()) as tables:
        page = demo.run()
    (out / TABLES).write_text(tables.getvalue(), encoding="utf-8")
    write_page(out / PAGE, report(page))
    say(INTRODUCTION)
    say("\n\n".join(_told(question, getattr(page, name).findings) for name, question in QUESTIONS.items()))
    say(f"\nFigures and numbers are in {out}/, the tables in {out / TABLES}; {out / PAGE} shows it all.\n\n{NEXT}")


def _told(question: str, findings: Sequence[tuple[str, Finding]]) -> str:
    """What came out of an analysis."""
    lines = [question]
    for name, finding in findings:
        text = f"{name}: {finding.text}" if name else finding.text
        lines += [fill(part, WIDTH) for part in (*text.splitlines(), finding.comparison())]
    return "\n".join(lines)


@dataclass(frozen=True)
class Demo:
    """The analyses, each of which writes its folder in `out`."""

    out: Path
    overwrite: bool
    device: str
    seed: int

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

    def _correlation(self, everyone: Sequence[Inputs], again: Again) -> Section[Mapping[str, BesideUntrained]]:
        results = {}
        for inputs in everyone:
            name = inputs.checkpoint.name
            results[name] = correlation.report(inputs, None, self.out / name, overwrite=self.overwrite, as_json=False)
        images = len(everyone[0].chosen)
        commands = [again("correlation", [place], images) for place in range(len(everyone))]
        return Section(results, correlation.about(images), commands, named_findings(results))

    def _gini(self, again: Again) -> Section[Mapping[str, GiniReadings]]:
        sources = [gini.of_network(self._inputs(name, GINI_IMAGES), None) for name in NETWORKS]
        results = gini.report(
            sources, self.out / "gini", rows="centred", seed=self.seed, overwrite=self.overwrite, as_json=False
        )
        findings = [("", gini.finding(results, sources))]
        return Section(results, gini.about(GINI_IMAGES), [again("gini", [0, 1], GINI_IMAGES)], findings)

    def _gradients(self) -> Section[GradientResult]:
        images = gradients.open_labelled(
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
        result = gradients.report(
            compared, images, None, self.out / "gradients", per_block=False, overwrite=self.overwrite, as_json=False
        )
        about = (
            "The gradient of the loss at each stage's output of two other networks, which have random weights and no "
            f"skip connections, on {GRADIENT_IMAGES} images, in training mode."
        )
        models = " ".join(f"--model {name}" for name in WITHOUT_SKIP)
        command = f"dia-analyze gradients {models} --set skip=false --data {DATA} --images {GRADIENT_IMAGES}"
        return Section(
            result,
            about,
            [f"{command} --seed {self.seed}"],
            [("Untrained networks without skip connections", gradient_finding(result))],
        )

    def _gradcam(self, again: Again) -> Section[Heatmaps]:
        selection = gradcam.Selection((), DATA, CAM_IMAGES, None, 1, False)
        outcome = gradcam.report(
            NETWORKS,
            selection,
            gradcam.Explanation(layer=LAYER),
            trust=False,
            device=self.device,
            batch_size=32,
            seed=self.seed,
            out=self.out / "gradcam",
            overwrite=self.overwrite,
            as_json=False,
        )
        found = as_heatmaps(outcome, selection.open(DATA, self.seed))
        return Section(
            found,
            f"Grad-CAM of {CAM_IMAGES} images for the class that each network predicts.",
            [again("gradcam", [0, 1], CAM_IMAGES, "--trust", "--layer", LAYER)],
            [("", cam_finding(found.results, found.checks))],
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
