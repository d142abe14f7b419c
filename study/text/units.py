"""Numbers, configurations and durations as text, each in one form everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.plan.results import Configuration
from study.plan.statistics import Difference, Score
from study.space.metric import Metric
from study.space.search_space import Validation, Value
from study.space.settings import DataFacts

_NAMED = 12  # classes


def gap(difference: Difference | None, metric: Metric) -> str:
    """A difference with its standard error, of accuracies in points; empty for None."""
    if difference is None:
        return ""
    return metric.uncertain(difference.mean, difference.standard_error)


def mean(value: float, error: float | None, metric: Metric) -> str:
    """A mean with its standard error, if that is known."""
    return f"{metric.uncertain(value, error)}{metric.unit}"


def score(score: Score, metric: Metric) -> str:
    """Mean and standard error."""
    return mean(score.mean, score.standard_error, metric)


def params(configuration: Configuration | Mapping[str, Value]) -> str:
    """A configuration in one line."""
    items = configuration.items() if isinstance(configuration, Mapping) else configuration
    return ", ".join(f"{name}={value}" for name, value in items)


def value(value: Value) -> str:
    """A value of a hyperparameter; a real number to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counted(number: int, thing: str) -> str:
    """``1 repeat``, ``3 repeats``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def classes(data: DataFacts) -> str:
    """How many classes, with their names if those are words."""
    if data.num_classes == 1:
        return "labels are numbers"
    names = [name for name in data.label_names if isinstance(name, str)]
    more = ", ..." if len(names) > _NAMED else ""
    said = f" ({', '.join(names[:_NAMED])}{more})" if names else ""
    return f"{data.num_classes} classes{said}"


def validation(way: Validation) -> str:
    """How the validation images of a run are chosen."""
    return f"{way.folds} folds" if way.kind == "folds" else f"{way.fraction:.0%} held out"


def duration(seconds: float) -> str:
    """A duration in the unit that matters."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
