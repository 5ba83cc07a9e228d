"""Forests of few trees and checks of few draws, for tests that ask what is said of them and not what they find."""

from functools import partial

from dia_analysis.trust import checks


def shorten(monkeypatch):
    """A tenth of the trees, a third of the folds, halves and draws."""
    for name, few in (("TREES", 10), ("HALF_TREES", 2), ("FOLD_TREES", 2), ("FOLDS", 2), ("SPLITS", 3)):
        monkeypatch.setattr(f"dia_analysis.importance.layer_forests.{name}", few)
    monkeypatch.setattr("dia_analysis.importance.halves.SPLITS", 3)
    for name in ("check_randomization", "check_road"):
        monkeypatch.setattr(checks, name, partial(getattr(checks, name), draws=1))
