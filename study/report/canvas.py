"""The parts that all figures share: colours with one meaning each, style, and rendering.

Figures are made without pyplot and rendered by Agg: no graphical interface is loaded.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from study.space.metric import Metric
from study.text.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas

INK, MUTED, GRID, OTHER = "#1f2328", "#59636e", "#d9dee4", "#9aa4af"
SELECTED, BEST = "#0072b2", "#d55e00"
"""One meaning in every figure: the selected option, and the best mean if that is another one."""

OPTIONS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Further options of a panel; with the two above colours of Okabe and Ito (2008), which people with
any colour blindness can tell apart."""

KINDS = {"selected": SELECTED, "best": BEST, "other": OTHER}

COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", OTHER: "other"}
COLOURS |= {SELECTED: "selected", BEST: "best"}
COLOURS |= {colour: f"option{number}" for number, colour in enumerate(OPTIONS, start=1)}
"""The page's variable for each colour of a figure."""

_WIDTH = 7.4  # inches; the page scales an SVG to its column
_LONGEST = 44  # characters of a label

Item = TypeVar("Item")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a name with dollars in it is a name
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure: its file name without ending, a description in words, SVG text, PNG bytes.

    ``canvas`` is the figure of matplotlib that it was rendered from.
    """

    name: str
    alt: str
    svg: str
    png: bytes
    canvas: Canvas | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """A section of the page: heading, sentences, picture, caption, and the numbers as a table.

    ``file`` is the CSV file that has all numbers; without a ``table`` the page refers to it alone.
    """

    heading: str
    picture: Picture
    caption: str
    file: str
    table: Table | None = None
    sentences: tuple[str, ...] = ()


def end_at_100(axis: Axis, metric: Metric) -> None:
    """Remove ticks beyond 100 % from an axis of accuracies; a mark at 100 needs the room."""
    if not metric.is_accuracy:
        return
    low, high = axis.get_view_interval()
    axis.set_ticks([tick for tick in axis.get_ticklocs() if low <= tick <= min(high, 100)])


def short(label: str) -> str:
    """A label that leaves room for the figure."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


@contextmanager
def blank(
    height: float, columns: int = 1, rows: int = 1, widths: Sequence[float] | None = None
) -> Iterator[tuple[Canvas, Axes]]:
    """An empty figure in the style of the report, and its first axes; ``height`` in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(), warnings.catch_warnings(action="ignore", category=UserWarning):
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        canvas = Canvas(figsize=(_WIDTH, height), layout="constrained")
        canvas.subplots(rows, columns, sharey=True, width_ratios=widths)
        yield canvas, canvas.axes[0]


def rendered(canvas: Canvas, name: str, alt: str) -> Picture:
    """The figure as SVG for the page and as PNG; ``alt`` describes it in words."""
    import matplotlib as mpl

    mpl.rcParams["svg.hashsalt"] = name  # identifiers that no other figure of the page has
    text, image = io.StringIO(), io.BytesIO()
    canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    canvas.set_layout_engine(None)  # the layout is final: do not compute it twice
    canvas.savefig(image, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return Picture(name, alt, _for_page(text.getvalue()), image.getvalue(), canvas)


def _for_page(svg: str) -> str:
    """The ``svg`` element alone, with the page's colours, without identifiers of others."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns|xmlns:xlink|version)="[^"]*"', "", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg).replace("<svg", '<svg aria-hidden="true"', 1)


def least(metric: Metric, value: float) -> float:
    """A small difference on the axis of a metric: 0.1 points, or a thousandth of the value."""
    return 0.1 if metric.is_accuracy else 1e-3 * abs(value) or 1e-3


def spaced(items: Sequence[Item], most: int) -> list[Item]:
    """At most ``most`` items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def file_part(name: str) -> str:
    """A name as a part of the name of a figure's file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]
