"""What libraries do not promise, and what is lost where a new version of them does it otherwise."""

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


def test_keras_adam_updates_all_variables_in_one_call_and_has_two_moments_of_each() -> None:
    import keras
    import tensorflow as tf

    from study.training.private import adam_moments

    weights = [keras.Variable(np.zeros(shape, np.float32)) for shape in [(2, 3), (3, 2)]]
    adam, calls = keras.optimizers.Adam(0.01, beta_1=0.75, beta_2=0.5), []
    adam.build(weights)
    update = adam._backend_update_step
    adam._backend_update_step = lambda *given: calls.append(given) or update(*given)
    adam.apply([tf.ones([2, 3]), 2 * tf.ones([3, 2])], weights)
    found = [
        (m.shape, m.numpy().max(), v.numpy().max())
        for m, v in (adam_moments(adam, weight) for weight in weights)
    ]
    assert (len(calls), found) == (1, [((2, 3), 0.25, 0.5), ((3, 2), 0.5, 2.0)]), (
        "Keras' Adam keeps its moments or applies gradients in another way: see"
        " keras.optimizers.Adam.update_step, and change study.training.private and quick_layers"
    )


def test_layers_inside_of_layers_are_found() -> None:
    import keras
    from keras import layers

    from study.training.private import flat_layers

    inner = keras.Sequential([layers.Dense(2)])
    model = keras.Sequential([layers.TimeDistributed(inner)])
    assert {type(layer).__name__ for layer in flat_layers(model)} >= {"Dense", "TimeDistributed"}, (
        "Keras finds inner layers in another way: they would train slower. See"
        " keras.Layer._flatten_layers, and change study.training.private"
    )


def test_tensorflow_can_be_told_to_forget_kernels_and_computes_on() -> None:
    import tensorflow as tf

    from study.training.private import forget_kernels

    try:
        forget_kernels()
    except AttributeError:
        pytest.fail(
            "TensorFlow's eager context has no clear_kernel_cache any more: networks that are"
            " released would stay in the memory of a worker, 7 MB each. See what"
            " keras.utils.clear_session calls now, and change study.training.private"
        )
    assert int(tf.constant(1) + 1) == 2


def test_keras_draws_seeds_where_they_can_be_decided() -> None:
    import keras

    from study.training.private import seeds_drawn_from

    def drawn() -> int:
        with seeds_drawn_from(3):
            return int(keras.random.SeedGenerator().state.numpy()[0])

    assert drawn() == drawn(), (
        "Keras draws the seeds of its layers elsewhere: an own network would have other first"
        " weights where another thread draws in between. See what make_default_seed calls now, and"
        " mend study.training.private"
    )
