"""Labels that are probably wrong come first, and few that are right are called candidates."""

import numpy as np
import pytest

from study.final.gallery import rank

IMAGES, CLASSES = 400, 4
RNG = np.random.default_rng(7)
TRUTH = np.arange(IMAGES) % CLASSES


def sure_members(count: int = 3, hard: float = 0.03):
    """Members that are sure of the truth but for three of a hundred images, where they guess."""
    scores = RNG.normal(0, 1, (count, IMAGES, CLASSES)) + 8 * np.eye(CLASSES)[TRUTH]
    guessed = RNG.random(IMAGES) < hard
    scores[:, guessed] = RNG.normal(0, 1, (count, guessed.sum(), CLASSES))
    each = np.exp(scores)
    return (each / each.sum(axis=2, keepdims=True)).astype(np.float32), guessed


def changed(images):
    labels = TRUTH.astype(np.int32)
    labels[images] = (labels[images] + 1) % CLASSES
    return labels


def test_changed_labels_are_the_candidates_and_come_first() -> None:
    members, guessed = sure_members()
    wrong = np.flatnonzero(~guessed)[::30]
    ranking = rank(members, changed(wrong))
    assert set(ranking.order[: len(wrong)]) == set(wrong)
    assert set(np.flatnonzero(ranking.candidate)) == set(wrong)


def test_an_image_that_no_model_is_sure_of_is_no_candidate() -> None:
    members, _ = sure_members(hard=0.1)
    ranking = rank(members, TRUTH.astype(np.int32))
    mistaken = members.mean(axis=0).argmax(axis=1) != TRUTH
    assert mistaken.sum() > 5
    assert not ranking.candidate.any()
    assert set(ranking.order[: mistaken.sum()]) == set(np.flatnonzero(mistaken))


def test_the_threshold_is_that_of_the_class_not_one_for_all() -> None:
    """Members are never surer of class 1 than 0.6; 0.6 for it is as good as 0.99 for another."""
    one = np.array([[0.99, 0.01], [0.99, 0.01], [0.4, 0.6], [0.4, 0.6], [0.4, 0.6], [0.7, 0.3]])
    labels = np.array([0, 0, 1, 1, 0, 1], np.int32)
    ranking = rank(one[np.newaxis].astype(np.float32), labels)
    assert ranking.candidate.tolist() == [False] * 4 + [True, False]
    assert ranking.order[0] == 4
    assert ranking.margin[4] == pytest.approx(-0.2)


def test_more_votes_go_before_a_wider_margin() -> None:
    base = np.tile(np.float32([[0.9, 0.1], [0.1, 0.9]]), (2, 20, 1))
    labels = np.tile(np.array([0, 1], np.int32), 20)
    base[:, 0] = [[0.08, 0.92], [0.12, 0.88]]  # one is sure, the other is not
    base[:, 2] = [[0.1, 0.905], [0.1, 0.905]]
    ranking = rank(base, labels)
    assert ranking.votes[[0, 2]].tolist() == [1, 2]
    assert ranking.margin[0] > ranking.margin[2] or ranking.order[0] == 2
    assert ranking.order[:2].tolist() == [2, 0]


def test_a_class_without_images_and_a_single_member_do_no_harm() -> None:
    members, _ = sure_members(1)
    more = np.concatenate([members, np.zeros((1, IMAGES, 1), np.float32)], axis=2)
    assert not rank(more, TRUTH.astype(np.int32)).candidate.any()
