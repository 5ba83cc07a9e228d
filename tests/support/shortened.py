"""Forests of few trees and checks of few draws, for tests that ask what is said of them and not what they find."""

from functools import partial

from dia_analysis.trust import checks


def shorten(monkeypatch):
    """A tenth of the trees, a third of the draws."""
    for name, trees in (("TREES", 10), ("HALF_TREES", 2), ("FOLD_TREES", 2)):
        monkeypatch.setattr(f"dia_analysis.importance.layer_forests.{name}", trees)
    for name in ("check_randomization", "check_road"):
        monkeypatch.setattr(checks, name, partial(getattr(checks, name), draws=1))
