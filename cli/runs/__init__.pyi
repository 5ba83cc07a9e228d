from . import evaluate, fit, fold, generate, import_weights, models, share, sweep

__all__ = ["evaluate", "fit", "fold", "generate", "import_weights", "models", "share", "sweep"]
