"""dia-analyze attention: the maps themselves, over the images."""

from itertools import chain
from pathlib import Path
from typing import get_args

import torch

from cli.common.inputs import Inputs
from cli.common.options import AttentionOptions
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, AttentionResult, measure_attention
from dia_analysis.attention.layer import Named, Query
from dia_models import ModelInputError


def report(inputs: Inputs, given: AttentionOptions, out: Out) -> None:
    """Capture the maps, print the table of the layers or the JSON document, and write the page, pictures and arrays."""
    query, heads = _query(given.query), _heads(given.heads)
    with out.folder("attention", [inputs.name], inputs.images.data) as taken:
        try:
            result = _measure(inputs, given, query, heads)
        except AnalysisInputError as error:
            raise inputs.blamed(error) from error
        inputs.images.report_unreadable()
        out.publish(Found.of(result, dict), taken, inputs.images.source)


def _measure(inputs: Inputs, given: AttentionOptions, query: Query, heads: list[int] | None) -> AttentionResult:
    pixels = torch.cat(list(inputs.batches(inputs.name)))
    pictures = tuple(chain.from_iterable(inputs.pictures(inputs.preprocessing.size, 64)))
    return measure_attention(
        inputs.model,
        pixels,
        layers=given.layers,
        heads=heads,
        query=query,
        rollout=given.rollout,
        image_names=[Path(path).name for path in inputs.images.paths()],
        pictures=pictures,
        provenance=inputs.provenance(),
    )


def _query(text: str | None) -> Query:
    if text is None or text in get_args(Named):
        return text  # type: ignore[return-value]
    try:
        x, y = map(int, text.split(","))
    except ValueError:
        accepted = "class, mean, or X,Y in pixels"
        raise ModelInputError("query", f"{text!r} given; accepted: {accepted}") from None
    return x, y


def _heads(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise ModelInputError("heads", f"{text!r} given; accepted: numbers from 0, such as 0,2") from None
