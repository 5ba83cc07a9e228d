"""The paper's figures of a result, by the names of the files that hold them."""

from matplotlib.figure import Figure

from dia_analysis import CostResult, Result, TrustReport
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_analysis.paper.importance import ImportanceComparison
from dia_analysis.results.output import file_name
from figures.cost import cost_ratios
from figures.gini import triangles
from figures.gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from figures.structure import importance_arcs
from figures.trust import trust_checks


def paper_figures(result: Result) -> dict[str, Figure]:
    """Draw those figures that the result has numbers for.

    Args:
        result: What an analysis of importance, gradients, cost or trust found; others have none.

    Returns:
        The figures, by file name without a suffix.
    """
    if not result.panels():
        return {}
    match result:
        case ImportanceComparison():
            first = {name: readings.first for name, readings in result.networks.items()}
            return {"fig11-importance": triangles(first), "fig12-structure": importance_arcs(first)}
        case BesidePlain():
            return _gradients(result)
        case CostResult() if any(network.baseline not in (None, network.name) for network in result.networks):
            return {"cost-ratios": cost_ratios(result)}
        case TrustReport():
            return {f"trust-{file_name(c.name)}": trust_checks(c.randomization, c.road) for c in result.checks}
    return {}


def _gradients(found: BesidePlain) -> dict[str, Figure]:
    result = found.result
    drawn = {"fig13-distribution": gradient_distributions(result)}
    if any(network.epoch is not None for network in result.networks):
        drawn["fig13-training"] = gradients_along_training(result)
    if any(network.blocks for network in result.networks):
        drawn["fig13-blocks"] = gradients_along_depth(result)
    return drawn
