"""The checks of one network's maps together: does it pass, and if not, the one line that says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dia_analysis.agreement import AgreementResult
from dia_analysis.deletion import DeletionResult
from dia_analysis.randomisation import RandomisationResult


@dataclass(frozen=True)
class TrustChecks:
    """The checks of the maps of the network `name`.

    A check fails if it says no; one that is uncertain fails nothing. The limits: a rank correlation of 0.5 or more
    with the intact network's maps when every weight is noise (`RandomisationResult.depends_on_weights`); removing and
    bringing back what the maps mark is no better than at random (`DeletionResult.better_than_random`).
    """

    name: str
    randomisation: RandomisationResult
    deletion: DeletionResult

    def failures(self) -> list[str]:
        """What the maps fail, in words."""
        failed = []
        if self.randomisation.depends_on_weights is False:
            failed.append("they stay the same when the weights are destroyed")
        if self.deletion.better_than_random is False:
            failed.append("removing what they mark changes the score no more than removing at random")
        return failed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        checks = {"randomisation": self.randomisation.to_dict(), "deletion": self.deletion.to_dict()}
        return {"name": self.name, **checks, "failures": self.failures()}

    def summary(self) -> str:
        """What came out, in words."""
        return f"{self.randomisation.summary()}\n{self.deletion.summary()}"


def warnings(checks: Sequence[TrustChecks], agreements: Sequence[AgreementResult]) -> list[str]:
    """A line for each network whose maps fail a check, and for each group of runs whose maps do not agree."""
    lines = [
        f"warning: do not rely on the maps of {check.name}: {'; '.join(failed)}."
        for check in checks
        if (failed := check.failures())
    ]
    for found in agreements:
        if found.agrees is False:
            lines.append(
                f"warning: do not rely on the maps of {', '.join(found.names)}: runs of one network look at different "
                "things."
            )
    return lines
