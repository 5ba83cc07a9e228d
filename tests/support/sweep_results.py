"""Results of sweeps with given accuracies."""

from dia_analysis.paper.sweeps import SweepResult, TrainedRun


def run(variant, seed, accuracy, *, backbone="cifar_resnet164", data="cifar100", epochs=()):
    return TrainedRun(
        data=data,
        backbone=backbone,
        variant=variant,
        seed=seed,
        model="m",
        options={},
        parameters=1_234,
        sha256="0" * 64,
        outcome="nan" if accuracy is None else "finished",
        score=accuracy,
        best_score=accuracy,
        epochs=tuple(epochs),
    )


def result(name="table04", **scores):
    """A sweep whose variants have these accuracies, in percent; the last one is the reference."""
    reference = list(scores)[-1]
    runs = [run(v, i, None if s is None else s / 100) for v, own in scores.items() for i, s in enumerate(own)]
    versus = {variant: None if variant == reference else reference for variant in scores}
    return SweepResult(
        name, "Attention", "Table IV", "Which?", "paper", versus, len(runs), tuple(runs), {"command": "do"}
    )


BETTER, WORSE, SIMILAR = [70.0, 70.1, 70.2], [60.0, 60.1, 60.2], [69.0, 70.1, 71.3]
WIDE, NARROW = [66.0, 70.1, 74.3], [70.05, 70.1, 70.2]
