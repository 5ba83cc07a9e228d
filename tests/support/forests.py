"""Forests of few trees, for tests that ask what is said and written of them, and not what they find."""


def shrink(monkeypatch):
    """A tenth of the trees."""
    for name, trees in (("TREES", 10), ("HALF_TREES", 2), ("FOLD_TREES", 2)):
        monkeypatch.setattr(f"dia_analysis.importance.layer_forests.{name}", trees)
