"""The stages of a study as a table of pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from study.plan.plan import Stage

if TYPE_CHECKING:
    import pandas as pd


def frame(stages: Iterable[Stage]) -> pd.DataFrame:
    """A line an option: its runs, score, gap to the best mean, and whether it was selected."""
    import pandas as pd

    return pd.DataFrame(
        {
            "stage": stage.name,
            "option": option.value,
            "state": option.state,
            "runs": len(option.rows),
            "mean": option.score.mean if option.score else None,
            "standard_error": option.score.standard_error if option.score else None,
            "gap_to_best": option.gap.mean if option.gap else None,
            "gap_to_best_standard_error": option.gap.standard_error if option.gap else None,
            "best_mean": option == stage.best,
            "selected": option == stage.selected,
        }
        for stage in stages
        for option in stage.options
    )
