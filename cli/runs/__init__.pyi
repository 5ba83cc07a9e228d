from . import evaluate, fit, generate, import_weights, models, sweep

__all__ = ["evaluate", "fit", "generate", "import_weights", "models", "sweep"]
