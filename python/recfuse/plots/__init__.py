"""Pictures of explanations, comparisons and trainings (extra: plot).

Every function returns a matplotlib Figure, made without pyplot: save it with ``savefig``, or draw
into `axes` of your own. Colours are those of Okabe and Ito [1]_, which people with any kind of
colour blindness tell apart; markers and line styles differ as well.

References
----------
.. [1] M. Okabe, K. Ito, "Color universal design", 2008.
"""

from __future__ import annotations

from recfuse.plots.explanations import contribution_bars, modality_heatmap
from recfuse.plots.models import comparison_bars, learning_curves, quality_latency

__all__ = [
    "comparison_bars",
    "contribution_bars",
    "learning_curves",
    "modality_heatmap",
    "quality_latency",
]
