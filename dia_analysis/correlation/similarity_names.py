"""The similarities by name; nothing here takes long to import."""

from collections.abc import Iterable

from dia_analysis.errors import AnalysisInputError

ALWAYS = ("pearson", "cka")
OTHERS = ("spearman", "cosine", "logit", "sorted")
READINGS = ("cosine", "logit", "sorted")
"""What Fig. 2's readings need."""


def check_similarities(names: str | Iterable[str]) -> tuple[str, ...]:
    """Those that are not always measured, each once. Raises AnalysisInputError for an unknown one."""
    listed = dict.fromkeys([names] if isinstance(names, str) else names)
    known = (*ALWAYS, *OTHERS)
    for name in listed:
        if name not in known:
            text = f"{name!r} is none; give some of: {', '.join(known)}; the first two are always measured"
            raise AnalysisInputError("similarity", text)
    return tuple(name for name in listed if name not in ALWAYS)
