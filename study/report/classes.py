"""The figures of the final model on the test images: confusion matrix, classes, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from study.final.calibration import Says
from study.final.confusion import Confusion, Knowledge, Rate
from study.report.canvas import MUTED, SELECTED, Figure, Picture, blank, rendered, short
from study.text import units
from study.text.tables import Table, table

MOST_CLASSES = 30
"""Classes whose names and counts are drawn, and lines of the table; the CSV has all of them."""

_SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])  # around a cell's place
_PAIRS = 5  # confused pairs that are named


def known_figures(known: Knowledge) -> tuple[Figure, ...]:
    """The confusion matrix with the classes' numbers, and how often the model is right."""
    return confusion_figure(known), _reliability(known)


def known_files(known: Knowledge) -> dict[str, bytes]:
    """The figures and tables as files by name."""
    pictures = [figure.picture for figure in known_figures(known)]
    return {f"{one.name}.png": one.png for one in pictures} | known.confusion.tables


def confusion_figure(known: Knowledge) -> Figure:
    """The confusion matrix; its table has recall and precision of each class."""
    confusion = known.confusion
    caption = (
        f"Test images of {known.model.model} by label (row) and prediction (column); all counts "
        "are in confusion.csv. Recall: of the images of a class, those found. Precision: of the "
        "images given its label, those of the class. Intervals are Wilson's, at 95 %."
    )
    return Figure(
        "Which classes are confused",
        draw_confusion(confusion, known.model.model),
        caption,
        "classes.csv",
        classes_table(confusion),
        tuple(pairs_said(confusion)),
    )


def pairs_said(confusion: Confusion) -> list[str]:
    """How many images are wrong, and the pairs of classes that are confused most."""
    wrong = int(confusion.matrix.sum() - np.trace(confusion.matrix))
    pairs = confusion.pairs(_PAIRS)
    if not pairs:
        return ["No test image is confused."]
    said = [
        f"{pair.first} and {pair.second}: {units.counted(pair.images, 'image')} "
        f"({pair.first} as {pair.second} {pair.first_as_second}, "
        f"{pair.second} as {pair.first} {pair.second_as_first})"
        for pair in pairs
    ]
    return [f"{units.counted(wrong, 'test image')} wrong. Confused most:", *said]


def classes_table(confusion: Confusion) -> Table:
    """Recall and precision of each class; of many classes those with the lowest recall."""
    scores = confusion.scores
    if len(scores) > MOST_CLASSES:
        found = sorted(scores, key=lambda one: one.recall.value if one.recall else 2)
        scores = found[:MOST_CLASSES]
    lines = [
        (
            str(one.label),
            str(one.recall.images if one.recall else 0),
            _words(one.recall),
            _words(one.precision),
        )
        for one in scores
    ]
    columns = ("class", "test images", "recall (95 % interval)", "precision (95 % interval)")
    return table("Recall and precision of each class", columns, lines, len(confusion.labels))


def _words(rate: Rate | None) -> str:
    if rate is None:
        return "no image"
    low, high = (100 * end for end in rate.interval)
    return f"{100 * rate.value:.2f} % ({low:.2f} to {high:.2f})"


def draw_confusion(confusion: Confusion, model: str) -> Picture:
    """Shares of each label's images as blue, and the counts where there is room for them."""
    from matplotlib.collections import PolyCollection

    matrix, names = confusion.matrix, [short(str(label)) for label in confusion.labels]
    images = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    share, many = np.sqrt(matrix / images), len(names) > MOST_CLASSES  # a root shows rare mistakes
    cells = np.argwhere(matrix > 0)
    with blank(6.5) as (canvas, axes):
        axes.grid(visible=False)
        corners = [cell[::-1] + _SQUARE for cell in cells]
        colours = _blues()(share[cells[:, 0], cells[:, 1]])
        axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="none"))
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        places = [] if many else range(len(names))
        axes.set_xticks(places, [] if many else names, rotation=90 if _are_long(names) else 0)
        axes.set_yticks(places, [] if many else names)
        axes.set(xlabel="predicted", ylabel="label")
        for row, column in [] if many else cells:
            dark = share[row, column] > 0.6
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                fontsize=8 if len(names) <= 12 else 5,
                color="white" if dark else "black",
            )
        alt = f"Confusion matrix of {model} over {len(names)} classes."
        return rendered(canvas, "confusion", alt)


def _blues() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", ["#ffffff", SELECTED])


def _are_long(names: Sequence[str]) -> bool:
    return max(map(len, names)) * len(names) > 60


def _reliability(known: Knowledge) -> Figure:
    """How often the model is right, by what it says."""
    found = known.model.calibration
    sentences = ["Not calibrated: no image was held out." if found is None else found.words]
    sentences += [f"{one.words[0].upper()}{one.words[1:]}." for one in known.says]
    caption = (
        "Test images in groups by the probability of the predicted class"
        f"{', calibrated' if found else ''}: its mean, and how many are right with one standard "
        "error. On the grey line a model is right as often as it says."
    )
    lines = [
        (
            f"{100 * one.says:.1f} %",
            f"{100 * one.right:.1f} ± {100 * one.error:.1f} %",
            f"{one.images:,}",
        )
        for one in known.says
    ]
    columns = ("says", "right", "test images")
    return Figure(
        "How sure it is, and how often it is right",
        _draw_reliability(known.says),
        caption,
        "classes.csv",
        table("Reliability", columns, lines),
        tuple(sentences),
    )


def _draw_reliability(says: Sequence[Says]) -> Picture:
    with blank(3.2) as (canvas, axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8)
        axes.errorbar(
            [100 * one.says for one in says],
            [100 * one.right for one in says],
            yerr=[100 * one.error for one in says],
            fmt="o",
            color=SELECTED,
            markersize=5,
            elinewidth=1,
        )
        low = min([100 * one.says for one in says] + [100 * one.right for one in says])
        axes.set(xlim=(max(0, low - 8), 102), ylim=(max(0, low - 12), 103))
        axes.set(xlabel="says (%)", ylabel="right (%)")
        alt = "How often the final model is right against how sure it is."
        return rendered(canvas, "calibration", alt)
