"""What the gradient's noise says of the batch size, for the page."""

from __future__ import annotations

from gradlab.diagnose.noise import advised, worth
from gradlab.report.groups import describe, swept
from gradlab.report.tables import Result


def sentences(result: Result) -> list[str]:
    """The advice of a single run; of a sweep the range of the noise scales, and the batch sizes that they suggest."""
    told = advised(result.tables["instruments"], result.runs)
    if result.size == 1 and told[0] is not None:
        return [told[0].sentence]
    known = [(one.scale, run) for run, one in enumerate(told) if one is not None and one.scale is not None]
    lost = sum(one is not None and one.scale is None for one in told)
    lines = []
    if known:
        (low, first), (high, last) = min(known), max(known)
        one, other = (describe(result, run, swept(result)) for run in (first, last))
        lines.append(
            f"The gradient noise scale lies between {low:.3g} ({one}) and {high:.3g} ({other}): it suggests a "
            f"data.batch_size of {worth(low)} to {worth(high)}."
        )
    if lost:
        lines.append(f"In {lost} of {result.size} runs the gradient of a batch cannot be told from its noise.")
    return lines
