"""What all figures share: colours with one meaning each, style, and how a figure becomes a picture.

Nothing of a graphical interface is touched: figures are made without pyplot, and rendered by Agg.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.space.metric import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, MUTED, GRID, OTHER = "#1f2328", "#59636e", "#d9dee4", "#9aa4af"
SELECTED, BEST = "#0072b2", "#d55e00"
"""One meaning in every figure: what is selected, and the best mean where that is another one."""

OPTIONS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Any further options of a panel. With the two above: colours of Okabe and Ito (2008), which people
with any colour blindness tell apart."""

KINDS = {"selected": SELECTED, "best": BEST, "other": OTHER}

COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", OTHER: "other"}
COLOURS |= {SELECTED: "selected", BEST: "best"}
COLOURS |= {colour: f"option{number}" for number, colour in enumerate(OPTIONS, start=1)}
"""The colours of a figure, and the page's variables that stand for them."""

_WIDTH = 7.4  # inches; the page scales an SVG to its column
_LONGEST = 44  # characters of a label

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
    """A drawn figure: its file name without ending, what it shows in words, SVG text, PNG bytes."""

    name: str
    alt: str
    svg: str
    png: bytes


def end_at_100(axis: Axis, metric: Metric) -> None:
    """No tick beyond 100 %: there is no such accuracy, though a mark at 100 needs room."""
    if not metric.is_accuracy:
        return
    low, high = axis.get_view_interval()
    axis.set_ticks([tick for tick in axis.get_ticklocs() if low <= tick <= min(high, 100)])


def short(label: str) -> str:
    """A label that leaves room for the figure."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


@contextmanager
def blank(height: float, columns: int = 1, rows: int = 1) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure in the style of the report, and its first axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings(action="ignore", category=UserWarning):
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        canvas = Figure(figsize=(_WIDTH, height), layout="constrained")
        canvas.subplots(rows, columns, sharey=True)
        yield canvas, canvas.axes[0]


def rendered(canvas: Figure, name: str, alt: str) -> Picture:
    """The drawn figure for page and file; ``alt`` says what it shows."""
    import matplotlib as mpl

    mpl.rcParams["svg.hashsalt"] = name  # identifiers must not meet those of another figure
    text, image = io.StringIO(), io.BytesIO()
    canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    canvas.set_layout_engine(None)  # it is settled: once is enough
    canvas.savefig(image, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return Picture(name, alt, _for_page(text.getvalue()), image.getvalue())


def _for_page(svg: str) -> str:
    """The ``svg`` element alone, with the page's colours and without what could meet another's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns|xmlns:xlink|version)="[^"]*"', "", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg).replace("<svg", '<svg aria-hidden="true"', 1)
