"""Forests of few trees, checks and nulls of few draws, for tests that ask what is said and not what is found."""

from functools import partial

from dia_analysis.correlation import chance
from dia_analysis.trust import checks


def shorten(monkeypatch):
    """A tenth of the trees, a third of the folds, halves and draws; of orders by chance a twentieth."""
    monkeypatch.setattr(chance, "permuted_channels", partial(chance.permuted_channels, draws=50))
    monkeypatch.setattr(chance, "permuted_images", partial(chance.permuted_images, draws=5))
    for name, few in (("TREES", 10), ("HALF_TREES", 2), ("FOLD_TREES", 2), ("FOLDS", 2), ("SPLITS", 3)):
        monkeypatch.setattr(f"dia_analysis.importance.layer_forests.{name}", few)
    monkeypatch.setattr("dia_analysis.importance.halves.SPLITS", 3)
    for name in ("check_randomization", "check_road"):
        monkeypatch.setattr(checks, name, partial(getattr(checks, name), draws=1))
