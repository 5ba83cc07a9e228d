"""The figures of correlation, by the names of the files that hold them."""

from matplotlib.figure import Figure

from dia_analysis.paper.correlation import CorrelationComparison
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.output import file_name
from figures.correlation import distribution, matrices, scatter
from figures.correlation_parts import across_networks, correlation_parts, distance_profile, stripes


def correlation_figures(comparison: CorrelationComparison) -> dict[str, Figure]:
    """Draw every network, and the matrix between each two that were compared.

    Args:
        comparison: What `dia-analyze correlation` found.

    Returns:
        The figures, by file name without a suffix; those of all networks but the first begin with the network's name.
    """
    drawn: dict[str, Figure] = {}
    for number, (name, outcome) in enumerate(comparison.networks.items()):
        drawn |= {
            figure if not number else f"{file_name(name)}-{figure}": each for figure, each in _figures(outcome).items()
        }
    for across in comparison.across:
        drawn[f"across-{file_name(across.a)}-{file_name(across.b)}"] = across_networks(across)
    return drawn


def _figures(outcome: BesideUntrained) -> dict[str, Figure]:
    """The figures of one network, none without a stage of two layers; of r where it has a meaning."""
    stages = outcome.trained.stages
    if not any(len(stage.layers) > 1 for stage in stages):
        return {}
    drawn: dict[str, Figure] = {}
    if outcome.panels():
        drawn["fig2-matrices"] = matrices(outcome.trained)
    if any(stage.comparable for stage in stages):
        drawn["fig2c-distribution"] = distribution(outcome.results())
        drawn["fig2ab-scatter"] = scatter(outcome.trained, outcome.provenance.seed or 0)
    if any(stage.readings for stage in stages):
        drawn["fig2d-parts"] = correlation_parts(outcome.results())
        if any(stage.comparable and len(stage.layers) > 2 for stage in stages):
            drawn["fig2e-distance"] = distance_profile(outcome.results())
    if any(stage.kind == "channel" and len(stage.stripes) > 1 for stage in stages):
        drawn["stripes"] = stripes(outcome.trained)
    return drawn
