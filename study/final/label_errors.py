"""Which labels of a data set are probably wrong, by what models say that were not trained on it.

Confident learning (Northcutt, Jiang and Chuang, JAIR 70 (2021), arXiv:1911.00068): a class's
threshold is the mean probability that a model gives to the images that have it as their label. An
image of which a model is at least so sure that it is of another class is a candidate. Here every
member of an average has thresholds and a say of its own. A candidate is no proof: see
`benchmarks/label_errors.py` for how many are real.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """What speaks against each label.

    ``votes`` (images,) counts the members that find another class at least as likely as they find
    it where it is the label. ``margin`` (images,) is the mean probability of the label less that
    of the likeliest other class, in -1..1. ``candidate`` (images,) are the images with a vote whose
    margin is below 0. ``order`` has every image, the most suspicious first: by votes, then margin.
    """

    votes: NDArray[np.int64]
    margin: NDArray[np.float64]
    candidate: NDArray[np.bool_]
    order: NDArray[np.int64]


def rank(members: Probabilities, labels: NDArray[np.int32]) -> Ranking:
    """Rank labels (images,) by the ``members``' probabilities (members, images, classes).

    No member may have been trained on these images. A class without an image has no threshold.
    """
    images = np.arange(len(labels))
    votes = np.array([_votes(member, labels) for member in members]).sum(axis=0)
    others = members.mean(axis=0, dtype=np.float64)
    own = others[images, labels]
    others[images, labels] = -np.inf
    margin = own - others.max(axis=1)
    candidate = (votes > 0) & (margin < 0)
    return Ranking(votes, margin, candidate, np.lexsort((margin, -(votes * candidate))))


def _votes(member: Probabilities, labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Of which images a member is as sure that they are of another class."""
    classes = range(member.shape[1])
    thresholds = [
        member[labels == one, one].mean(dtype=np.float64) if (labels == one).any() else np.inf
        for one in classes
    ]
    sure = member >= np.array(thresholds)
    sure[np.arange(len(labels)), labels] = False
    return np.asarray(sure.any(axis=1))
