"""dia-train eval: how well checkpoints classify, and for two classes how good a test they are."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.common.publish import Found, Out
from cli.runs.predictions import Options, Seen, Tested, test_all
from dia_analysis import Provenance
from dia_analysis.results.output import write_json
from dia_analysis.statistics.intervals import percent
from dia_analysis.xray.diagnosis import TwoClassResult, about_tests, compare_all, over_seeds, table
from dia_models import ModelInputError
from dia_models.data.chest_xray import CLASSES


def evaluate_checkpoints(ckpts: Sequence[str], data: str | None, options: Options, *, out: Out, as_json: bool) -> None:
    """Test checkpoints on all images of a data set's test part, print the scores and write them if `out` is given.

    Raises ModelInputError at the end, when all is printed and written, if a network diverged.
    """
    with out.if_given() as taken:
        tested = test_all(ckpts, data, options)
        document = _document(tested)
        found = Found(_about(tested), document, _text(tested), lambda folder: _write(tested, document, folder))
        found.publish(taken, as_json=as_json)
    if diverged := [text for each in tested if (text := each.diverged()) is not None]:
        more = f" (as did {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise ModelInputError("ckpt", f"{diverged[0]}{more}. Take a network from before that, or train it again")


def _document(tested: Sequence[Tested]) -> dict[str, Any]:
    """The document dia.eval/1: of one checkpoint its numbers, of several a list of these and how they differ."""
    if len(tested) == 1:
        return {"schema": "dia.eval/1", **tested[0].to_dict()}
    results = _results(tested)
    return {
        "schema": "dia.eval/1",
        "data": tested[0].data,
        "evaluations": [each.to_dict() for each in tested],
        "comparisons": [found.to_dict() for found in compare_all(results)],
        "networks": [found.to_dict() for found in over_seeds(results)],
    }


def _results(tested: Sequence[Tested]) -> list[TwoClassResult]:
    return [each.two_class for each in tested if each.two_class is not None]


def _text(tested: Sequence[Tested]) -> str:
    results = _results(tested)
    parts = [each.summary() for each in tested]
    if len(results) > 1:
        parts.append("Side by side\n" + table(results))
        compared = compare_all(results)
        lines = ["Paired tests on the same images", *(found.summary() for found in compared), about_tests(compared)]
        parts.append("\n".join(lines))
        parts += [found.summary() for found in over_seeds(results)]
    if paper := _beside_the_paper(tested):
        parts.append(paper)
    return "\n\n".join(parts)


def _beside_the_paper(tested: Sequence[Tested]) -> str | None:
    """Accuracy by class as in Table XI, with the paper's networks below each of ours."""
    rows = []
    for each in tested:
        if each.two_class is not None and (published := each.published()):
            half, size = each.two_class.everyone.half, each.checkpoint.info.preprocessing
            ours = [getattr(half, name) for name in ("sensitivity", "specificity", "accuracy")]
            cells = [percent(each) for each in ours]
            rows.append((f"{each.checkpoint.name} ({size.height}x{size.width})", *cells))
            theirs = [f"{published[name]:.1f}" for name in (*reversed(CLASSES), "all")]
            rows.append((f"  paper: {published['network']} (224x224)", *theirs))
    if not rows:
        return None
    heads = ("Table XI, accuracy in %", "PNEUMONIA", "NORMAL", "all")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)]
    return "\n".join(
        [*lines, "The paper's networks are ResNet50 on larger images; its numbers come without intervals."]
    )


def _about(tested: Sequence[Tested]) -> dict[str, Any]:
    models = [{"name": t.checkpoint.name, "checkpoint_sha256": t.checkpoint.sha256} for t in tested]
    return {**replace(Provenance(), data=tested[0].data, seed=0).to_dict(), "models": models}


def _write(tested: Sequence[Tested], document: dict[str, Any], folder: Path) -> None:
    write_json(folder / "eval.json", document)
    _write_csv(folder / "predictions.csv", [(each, each.seen) for each in tested])
    if validated := [(each, each.validation) for each in tested if each.validation is not None]:
        _write_csv(folder / "validation.csv", validated)


def _write_csv(path: Path, parts: Sequence[tuple[Tested, Seen]]) -> None:
    """A row per image: checkpoint, path, patient (empty if not known), label, and the score of each class."""
    classes = parts[0][0].classes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["checkpoint", "path", "patient", "label", *(f"score_{name}" for name in classes)])
        for tested, seen in parts:
            found = seen.predictions
            scores, patients = found.probabilities().tolist(), seen.patients or ("",) * len(found.names)
            for name, patient, label, row in zip(found.names, patients, found.labels.tolist(), scores, strict=True):
                writer.writerow([tested.checkpoint.name, name, patient, classes[label], *row])
