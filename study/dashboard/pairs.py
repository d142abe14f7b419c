"""The differences of options in pairs, as a figure that the dashboard draws with plotly.js.

The dashboard stores the figure in pieces of 2,045 characters, so it is kept small; plotly itself
is not needed to write it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.dashboard.markdown import ranked
from study.plan.plan import Option, PlanState
from study.plan.results import Difference, Spread
from study.text.view import labels

if TYPE_CHECKING:
    from optuna import Study

FIGURE = "paired-differences"
"""The figure's name in the dashboard: one that is saved again replaces the one before."""

_LONGEST = 40  # characters of a label

MOST = 16
"""Options in the figure; of more, those of the latest stages (of a search: the best)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """An option minus what it is compared with (fractions), repeat by repeat."""

    label: str
    differences: tuple[float, ...]
    mean: Difference


def pairs(standing: PlanState, images: int | None) -> list[Pairs]:
    """Every option against the incumbent of its stage, over the repeats that both have.

    In a search against the best configuration so far.
    """
    found = []
    for stage in standing.stages:
        called = labels(stage)
        against = next((o for o in stage.options if o.configuration == stage.incumbent), None)
        for option in ranked(stage) if stage.kind == "configurations" else stage.options:
            if against is None or option is against:
                continue
            name = "" if stage.kind == "configurations" else f"{stage.name} "
            made = _pairs(option, against, f"{name}{called[option.configuration]}", images)
            if made is not None:
                found.append(made)
            if stage.kind == "configurations" and len(found) == MOST:
                break
    return found[-MOST:]


def _pairs(option: Option, against: Option, label: str, images: int | None) -> Pairs | None:
    own, other = _values(option), _values(against)
    both = sorted(own.keys() & other.keys())
    if not both:
        return None
    values, others = [own[r] for r in both], [other[r] for r in both]
    return Pairs(
        label,
        tuple(one - two for one, two in zip(values, others, strict=True)),
        Spread(images).difference(values, others),
    )


def _values(option: Option) -> dict[int, float]:
    return {row.repeat: row.value for row in option.rows if row.value is not None}


@dataclass(frozen=True)
class Figure:
    """What `optuna_dashboard.save_plotly_graph_object` needs of a figure: its JSON."""

    found: Sequence[Pairs]
    search: bool

    def to_json(self) -> str:
        """The figure as plotly.js reads it; differences in percentage points."""
        labels = _short([pair.label for pair in self.found])
        points = {
            "type": "scatter",
            "mode": "markers",
            "name": "a repeat",
            "x": [
                label
                for label, pair in zip(labels, self.found, strict=True)
                for _ in pair.differences
            ],
            "y": [round(100 * value, 3) for pair in self.found for value in pair.differences],
            "marker": {"color": "#9aa4af", "size": 7, "symbol": "circle-open"},
        }
        means = {
            "type": "scatter",
            "mode": "markers",
            "name": "mean ± standard error",
            "x": labels,
            "y": [round(100 * pair.mean.mean, 3) for pair in self.found],
            "error_y": {"array": [round(100 * pair.mean.standard_error, 3) for pair in self.found]},
            "marker": {"color": "#2a78d6", "size": 10, "symbol": "diamond"},
        }
        against = "the best so far" if self.search else "what the sweep had"
        layout = {
            "title": {"text": f"Options against {against}, in pairs"},
            "xaxis": {"type": "category"},
            "legend": {"orientation": "h", "y": -0.2},
            "yaxis": {"title": {"text": "points of validation accuracy"}, "zeroline": True},
        }
        return json.dumps({"data": [points, means], "layout": layout}, separators=(",", ":"))


def _short(labels: Sequence[str]) -> list[str]:
    """Labels that fit below a figure; long ones are numbered, as equal ones share one place."""
    return [
        label if len(label) <= _LONGEST else f"#{number} {label[: _LONGEST - 5]}…"
        for number, label in enumerate(labels, start=1)
    ]


def save(study: Study, standing: PlanState, images: int | None) -> None:
    """Put the figure into the dashboard, in the place of the one before."""
    from optuna_dashboard import save_plotly_graph_object

    found = pairs(standing, images)
    if found:
        search = standing.stages[0].kind == "configurations"
        save_plotly_graph_object(study, Figure(found, search), graph_object_id=FIGURE)
