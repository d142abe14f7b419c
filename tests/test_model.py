"""The network is the tutorial's, and what it cannot be is refused before Keras is asked."""

from typing import Any

import pytest

from study.errors import SpaceError
from study.training import recipe
from study.training.network import DEFAULTS, build_cnn, check

MNIST = (28, 28, 1)


def described(**params: Any) -> list[tuple[Any, ...]]:
    """Class, what the tutorial chose, and output shape of each layer."""
    wanted = ("filters", "kernel_size", "pool_size", "padding", "units", "rate", "activation")
    rows = []
    for layer in build_cnn(params, MNIST, 10).layers:
        config = layer.get_config()
        chosen = tuple(config[name] for name in wanted if name in config)
        rows.append((type(layer).__name__, *chosen, tuple(layer.output.shape[1:])))
    return rows


@pytest.mark.tensorflow
def test_the_layers_are_the_tutorials() -> None:
    assert described(filters=8, k1=3, k2=7, dense=64, dropout=0.1) == [
        ("Conv2D", 8, (3, 3), "same", "relu", (28, 28, 8)),
        ("MaxPooling2D", (2, 2), "valid", (14, 14, 8)),
        ("Dropout", 0.1, (14, 14, 8)),
        ("Conv2D", 16, (7, 7), "valid", "relu", (8, 8, 16)),
        ("MaxPooling2D", (2, 2), "valid", (4, 4, 16)),
        ("Dropout", 0.1, (4, 4, 16)),
        ("Flatten", (256,)),
        ("Dense", 64, "linear", (64,)),
        ("Dropout", 0.1, (64,)),
        ("Dense", 10, "softmax", (10,)),
    ]


@pytest.mark.tensorflow
def test_what_is_left_out_has_the_default() -> None:
    layers = {name: value for name, value in DEFAULTS.items() if name not in recipe.DEFAULTS}
    assert described() == described(**layers)
    optimizer = build_cnn({}, MNIST, 10).optimizer
    assert type(optimizer).__name__ == "Adam"
    assert float(optimizer.learning_rate) == pytest.approx(0.001)


@pytest.mark.tensorflow
@pytest.mark.parametrize("shape", [(4, 4, 1), (5, 7, 3), (9, 6, 1)])
def test_the_largest_kernels_that_are_allowed_fit(shape: tuple[int, int, int]) -> None:
    side = min(shape[:2])
    model = build_cnn({"k1": side, "k2": side // 2 - 1}, shape, 2)
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"kernel": 3},
            "kernel is not a parameter of the network; allowed: filters, k1, k2, dense, ",
        ),
        (
            {"filtres": 3},
            "filtres is not a parameter of the network; did you mean filters? allowed: ",
        ),
        ({"stretch": 0.1}, "stretch is called zoom now; write that"),
        ({"shift": 0.1}, "shift is called translation now; write that"),
        ({"keep_best": True}, "keep_best is called restore_best_weights now; write that"),
        ({"filters": 0}, "filters is 0; it must be a whole number from 1"),
        ({"dense": 32.0}, "dense is 32.0; it must be a whole number"),
        ({"k1": True}, "k1 is True; it must be a whole number"),
        ({"k2": "5"}, "k2 is '5'; it must be a whole number"),
        ({"dropout": 1}, "dropout is 1; it must be a number from 0 to below 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be a number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"k1": 29}, "k1 is 29; it must be at most 28 on 28x28 images"),
        ({"k2": 14}, "k2 is 14; it must be at most 13 on 28x28 images"),
    ],
)
def test_a_parameter_the_network_cannot_have_is_named(params: dict[str, Any], said: str) -> None:
    with pytest.raises(SpaceError) as error:
        check(params, MNIST, 10)
    assert said in str(error.value)


def test_images_too_small_for_any_kernel_are_refused() -> None:
    with pytest.raises(SpaceError, match="images of 3x28 are too small; both sides need 4"):
        check({}, (3, 28, 1), 10)


def test_one_class_is_refused() -> None:
    with pytest.raises(SpaceError, match="1 class"):
        check({}, MNIST, 1)


def test_the_tutorials_whole_space_fits() -> None:
    for k1 in (3, 4, 7):
        for k2 in (3, 5, 7):
            check({"k1": k1, "k2": k2}, MNIST, 10)
