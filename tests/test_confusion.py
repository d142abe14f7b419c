"""What the stored predictions say of a final model: which classes it confuses, how sure it is."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.final import calibration, confusion, records
from study.final.confusion import Knowledge
from study.final.records import FinalModel
from study.report import classes

LABELS = ("cat", "=dog", 3)
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 1, 0, 0])
FINAL = FinalModel(
    "average of 2", "a.keras", ("k",), ({},), "abc", "2026", 8, 90, "accuracy", 0.5, 0.2, 0.8
)


def random_outputs(images: int, temperature: float, seed: int = 1) -> tuple[Any, Any]:
    """Probabilities of 5 classes, too sure by this factor, and labels drawn from true ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, 5))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(5, p=one) for one in true])
    said = np.exp(logits * temperature)
    return (said / said.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_a_confusion_matrix_has_labels_as_rows_and_predictions_as_columns() -> None:
    found = confusion.counted(PREDICTED, TRUTH, LABELS)
    assert found.matrix.tolist() == [[2, 2, 0], [1, 2, 0], [1, 0, 0]]


def test_recall_and_precision_have_the_intervals_of_wilson() -> None:
    cat, dog, three = confusion.counted(PREDICTED, TRUTH, LABELS).scores
    assert cat.recall is not None
    assert cat.precision is not None
    assert (cat.recall.value, cat.precision.value) == (0.5, 0.5)
    assert cat.recall.interval == records.interval(2, 4)
    assert dog.precision is not None
    assert (dog.precision.hits, dog.precision.images) == (2, 4)
    assert three.recall is not None
    assert three.recall.value == 0
    assert three.precision is None


def test_a_class_without_test_images_has_no_recall() -> None:
    found = confusion.counted(np.array([0, 1]), np.array([0, 0]), ("a", "b"))
    assert [one.recall is None for one in found.scores] == [False, True]
    assert "no image" in str(classes.classes_table(found).lines)


def test_the_pairs_that_are_confused_most_come_first() -> None:
    pairs = confusion.counted(PREDICTED, TRUTH, LABELS).pairs()
    assert [(pair.first, pair.second, pair.images) for pair in pairs] == [
        ("cat", "=dog", 3),
        ("cat", 3, 1),
    ]
    assert (pairs[0].first_as_second, pairs[0].second_as_first) == (2, 1)
    said = classes.pairs_said(confusion.counted(PREDICTED, TRUTH, LABELS))
    assert said[0] == "4 test images wrong. Confused most:"
    assert said[1] == "cat and =dog: 3 images (cat as =dog 2, =dog as cat 1)"
    right = confusion.counted(TRUTH, TRUTH, LABELS)
    assert classes.pairs_said(right) == ["No test image is confused."]


def test_the_tables_hold_every_class_and_a_formula_is_a_text() -> None:
    found = confusion.counted(PREDICTED, TRUTH, LABELS)
    matrix = [*csv.reader(found.matrix_csv().decode().splitlines())]
    assert matrix[0] == ["label", "cat", "'=dog", "3"]
    assert matrix[2] == ["'=dog", "1", "2", "0"]
    rows = [*csv.DictReader(found.classes_csv().decode().splitlines())]
    assert [row["label"] for row in rows] == ["cat", "'=dog", "3"]
    assert (rows[0]["recall"], rows[2]["precision"]) == ("0.5", "")
    assert float(rows[0]["recall_low"]) == pytest.approx(records.interval(2, 4)[0], abs=1e-6)


def stored(folder: Path, **changed: Any) -> None:
    outputs = np.eye(3, dtype=np.float32)[PREDICTED][np.newaxis] * 0.7 + 0.1
    arrays = {"probabilities": outputs, "labels": TRUTH, **changed}
    with records.probabilities_file(folder, "abc").open("wb") as file:
        np.savez(file, **arrays)


def test_what_finalize_stored_is_read_without_the_test_set(tmp_path: Path) -> None:
    assert confusion.read(tmp_path, FINAL, LABELS) is None
    stored(tmp_path)
    found = confusion.read(tmp_path, FINAL, LABELS)
    assert found is not None
    assert found.confusion.matrix.trace() == 4
    assert [(one.images, one.right) for one in found.says] == [(8, 0.5)]


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": TRUTH[1:]},
        {"labels": TRUTH + 7},
        {"labels": TRUTH + 0.5},
        {"probabilities": np.ones((1, 8, 2), np.float32)},
        {"probabilities": np.ones((8, 3), np.float32)},
    ],
)
def test_predictions_of_other_data_are_not_shown(tmp_path: Path, changed: Any) -> None:
    stored(tmp_path, **changed)
    assert confusion.read(tmp_path, FINAL, LABELS) is None
    assert confusion.read(tmp_path, FINAL, ()) is None


def test_a_temperature_undoes_too_much_confidence() -> None:
    held_out, labels = random_outputs(6000, 2)
    temperature = calibration.fit(held_out, labels)
    assert temperature == pytest.approx(2, abs=0.12)
    test, truth = random_outputs(6000, 2, seed=2)
    found = calibration.measure(temperature, len(labels), test, truth)
    assert found.after.value < found.before.value / 4
    assert found.before.low < found.before.value < found.before.high
    assert "before" in found.words
    after = calibration.calibrated(test, temperature)
    assert (after.argmax(axis=1) == test.argmax(axis=1)).all()
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-5)


def test_a_model_that_gets_every_held_out_image_right_is_not_made_sure_of_everything() -> None:
    labels = np.arange(100) % 5
    outputs = (np.eye(5)[labels] * 0.9 + 0.02).astype(np.float32)
    said = calibration.calibrated(outputs, calibration.fit(outputs, labels))
    assert said.max() == pytest.approx(101 / 102, abs=0.002)


def test_outputs_of_0_and_1_are_calibrated_without_a_warning() -> None:
    labels = np.arange(20) % 4
    outputs = np.eye(4, dtype=np.float32)[(labels + (np.arange(20) == 7)) % 4]
    said = calibration.calibrated(outputs, calibration.fit(outputs, labels))
    assert np.isfinite(said).all()
    assert said.max() < 1


def test_the_interval_of_a_calibration_error_holds_the_error_of_new_images() -> None:
    big, labels = random_outputs(100_000, 1.5, seed=3)
    true = calibration.expected_error(big[:60_000], labels[:60_000]).value
    held = 0
    for place in range(60_000, 100_000, 1000):
        some = slice(place, place + 1000)
        found = calibration.expected_error(big[some], labels[some])
        held += found.low <= true <= found.high
    assert held >= 34  # of 40


def test_the_reliability_of_a_calibrated_model_lies_on_the_line() -> None:
    outputs, labels = random_outputs(20_000, 1)
    says = calibration.reliability(outputs, labels)
    assert sum(one.images for one in says) == 20_000
    assert all(abs(one.says - one.right) < 4 * one.error for one in says)
    near = calibration.around_90(says)
    assert near is not None
    assert near.words.startswith(f"says {100 * near.says:.0f} %: right in ")
    assert calibration.around_90(says[:2]) is None


def known(classes_: int = 3) -> Knowledge:
    outputs, labels = random_outputs(400, 1)
    names = tuple(f"name {number}" for number in range(max(5, classes_)))
    found = confusion.counted(outputs.argmax(axis=1), labels, names)
    return Knowledge(FINAL, found, calibration.reliability(outputs, labels))


@pytest.mark.parametrize("count", [5, 120])
def test_the_figures_of_few_and_of_many_classes_can_be_drawn(count: int) -> None:
    for figure in classes.known_figures(known(count)):
        assert figure.picture.png.startswith(b"\x89PNG")
        assert figure.table is not None
        assert len(figure.table.lines) <= classes.MOST_CLASSES
    drawn, sure = classes.known_figures(known(count))
    assert (">name 0<" in drawn.picture.svg) is (count == 5)
    assert sure.sentences[0] == "Not calibrated: no image was held out."


def test_a_calibrated_model_says_what_that_changed() -> None:
    outputs, labels = random_outputs(400, 2)
    found = calibration.measure(1.9, 400, outputs, labels)
    said = replace(known(), model=replace(FINAL, calibration=found))
    assert "after temperature 1.90" in classes.known_figures(said)[1].sentences[0]
    again = FinalModel.from_json(said.model.to_json())
    assert again == said.model
