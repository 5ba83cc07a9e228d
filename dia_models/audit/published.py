"""The paper's parameter counts beside ours (Tables IV, XII to XVI)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dia_models.audit.counting import ParameterCounter
from dia_models.factory import blueprint
from dia_models.spec import ModelSpec, Option

CLASSES = 100
LIGHT = "the paper does not say how N/r values become N; of the readings 2N²/8 + 16N comes closest over all backbones"
NO_BIAS = "without biases, which the published module has"
PER_BACKBONE = "with r = 4, where the paper's ResNet164 fits with r = 16"
WITHOUT_NORMS = "with r = 16, where DIA-LSTM fits with r = 4 in Tables IV, XIII, XIV and XV"
SPA = "the paper's 1.96 is that of no published SPA; with r = 16, which fits its WRN52-4, it is 3.86"


@dataclass(frozen=True)
class Entry:
    """One printed count, in millions, and the network of ours that it belongs to; what there is to say about it."""

    table: str
    network: str
    printed: str
    model: str
    options: dict[str, Option] = field(default_factory=dict)
    remark: str = ""

    @property
    def spec(self) -> ModelSpec:
        """Our network, for 100 classes."""
        return ModelSpec(name=self.model, num_classes=CLASSES, in_channels=3, options=self.options)

    @property
    def reduction(self) -> Option | None:
        """The r that our network was built with, its attention's default if not chosen; None without such an option."""
        plan = blueprint(self.spec).plan
        return None if plan.kind is None else {**plan.kind.options(), **plan.options}.get("reduction")


@dataclass(frozen=True)
class CountCheck:
    """An entry, our exact count, and whether it rounds to what the paper prints."""

    entry: Entry
    ours: int

    @property
    def fits(self) -> bool:
        """Whether our count, rounded to the paper's two decimals, is the paper's."""
        return f"{self.ours / 1e6:.2f}" == self.entry.printed

    @property
    def difference(self) -> int:
        """Ours minus the paper's, in parameters."""
        return self.ours - round(float(self.entry.printed) * 1e6)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        entry = self.entry
        return {
            "table": entry.table,
            "network": entry.network,
            "model": entry.model,
            "options": entry.options,
            "reduction": entry.reduction,
            "paper_millions": float(entry.printed),
            "ours": self.ours,
            "difference": self.difference,
            "fits": self.fits,
            "remark": entry.remark,
        }

    def row(self) -> str:
        """A line of `audit_table`."""
        entry = self.entry
        reduction = "-" if entry.reduction is None else str(entry.reduction)
        judged = f"{'matches' if self.fits else 'differs'}{f': {entry.remark}' if entry.remark else ''}"
        counts = f"{entry.printed:>5}M {self.ours:>11,} {self.difference:>+11,}"
        return f"{entry.table:<6} {entry.network:<38} {reduction:>2} {counts}  {judged}"


def audit_table(verdicts: Sequence[CountCheck]) -> str:
    """Every count of the paper beside ours, and how many match."""
    head = f"{'table':<6} {'network':<38} {'r':>2} {'paper':>6} {'ours':>11} {'difference':>11}  verdict"
    fit = sum(verdict.fits for verdict in verdicts)
    last = f"{fit} of {len(verdicts)} match to the printed digit; the rest are explained. r is our network's reduction."
    return "\n".join([head, *(verdict.row() for verdict in verdicts), "", last])


def _table_4() -> list[Entry]:
    printed = {
        "cifar_resnet164": {"": "1.73", "se": "1.93", "eca": "1.73", "cbam": "1.93", "srm": "1.76", "spa": "1.96",
                            "sem": "1.97", "spem": "1.76", "dia_lstm": "1.95", "dia_lstm_light": "1.75"},
        "cifar_wrn52_4": {"": "12.07", "se": "12.42", "eca": "12.07", "cbam": "12.16", "srm": "12.09", "spa": "13.02",
                          "sem": "12.44", "spem": "12.09", "dia_lstm": "12.30", "dia_lstm_light": "12.11"},
        "cifar_resnext101_8x32": {"": "32.14", "se": "34.03", "eca": "32.14", "cbam": "32.61", "srm": "32.18",
                                  "spa": "52.95", "sem": "34.09", "spem": "32.18", "dia_lstm": "33.01",
                                  "dia_lstm_light": "32.24"},
    }  # fmt: skip
    quarter: dict[str, Option] = {"reduction": 4}
    special: dict[tuple[str, str], tuple[dict[str, Option], str]] = {
        ("cifar_resnet164", "spa"): ({}, SPA),
        ("cifar_resnet164", "dia_lstm_light"): ({}, LIGHT),
        ("cifar_wrn52_4", "se"): (quarter, PER_BACKBONE),
        ("cifar_wrn52_4", "sem"): (quarter, PER_BACKBONE),
        ("cifar_resnext101_8x32", "se"): ({"bias": False, **quarter}, f"{PER_BACKBONE}; {NO_BIAS}"),
        ("cifar_resnext101_8x32", "cbam"): ({"bias": False}, NO_BIAS),
        ("cifar_resnext101_8x32", "spa"): (quarter, PER_BACKBONE),
        ("cifar_resnext101_8x32", "sem"): (quarter, PER_BACKBONE),
    }
    entries = []
    for backbone, counts in printed.items():
        for attention, count in counts.items():
            model = f"{backbone}_{attention}" if attention else backbone
            options, reason = special.get((backbone, attention), ({}, ""))
            entries.append(Entry("IV", model, count, model, options, reason))
    return entries


def _lstm(table: str, label: str, printed: str, depth: int = 164, **options: Option) -> Entry:
    return Entry(table, label, printed, f"cifar_resnet{depth}_dia_lstm", options)


def _tables_12_to_15() -> list[Entry]:
    reductions = {1: "2.59", 4: "1.95", 8: "1.84", 16: "1.78"}
    depths = {83: ("0.99", "1.11"), 164: ("1.93", "1.95"), 245: ("2.87", "2.78"), 407: ("4.74", "4.45")}
    stages = {1: "1.94", 2: "1.90", 3: "1.78"}
    return [
        *(_lstm("XII", f"r = {r}", printed, reduction=r) for r, printed in reductions.items()),
        *(Entry("XIII", f"ResNet{d} SE", p[0], f"cifar_resnet{d}_se") for d, p in depths.items()),
        *(_lstm("XIII", f"ResNet{d} DIA-LSTM", p[1], d) for d, p in depths.items()),
        *(_lstm("XIV", f"{a}, 1 cell", "1.95", activation=a) for a in ("sigmoid", "tanh", "relu")),
        *(_lstm("XIV", f"{a}, 3 cells", "3.33", activation=a, cells=3) for a in ("sigmoid", "tanh")),
        *(
            _lstm("XV", f"without stage {s}", printed, attention_stages=tuple({1, 2, 3} - {s}))
            for s, printed in stages.items()
        ),
    ]


def _table_16() -> list[Entry]:
    rows = {
        83: ("0.88", "0.98", "0.94"),
        164: ("1.70", "1.91", "1.76"),
        245: ("2.53", "2.83", "2.58"),
        326: ("3.35", "3.75", "3.41"),
    }
    models: tuple[tuple[str, dict[str, Option], str], ...] = (
        ("", {}, ""),
        ("_se", {}, ""),
        ("_dia_lstm", {"reduction": 16}, WITHOUT_NORMS),
    )
    return [
        Entry("XVI", f"ResNet{d}{a}, no batch norm", p, f"cifar_resnet{d}{a}", {"batch_norm": False, **options}, remark)
        for d, printed in rows.items()
        for p, (a, options, remark) in zip(printed, models, strict=True)
    ]


def audit() -> list[CountCheck]:
    """Count every network whose size the paper prints."""
    count = ParameterCounter()
    return [CountCheck(entry, count(entry.spec)) for entry in (*_table_4(), *_tables_12_to_15(), *_table_16())]
