"""What libraries do not promise, and what is lost where a new version of them does it otherwise."""

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


def test_keras_adam_has_its_moments_last_in_pairs() -> None:
    import keras
    import tensorflow as tf

    from study.training.private import adam_moments

    weights = [keras.Variable(np.zeros(shape, np.float32)) for shape in [(2, 3), (3, 2)]]
    for rate in (0.01, keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)):
        adam = keras.optimizers.Adam(rate, beta_1=0.75, beta_2=0.5)
        adam.build(weights)
        adam.apply([tf.ones([2, 3]), 2 * tf.ones([3, 2])], weights)
        found = [(m.shape, m.numpy().max(), v.numpy().max()) for m, v in adam_moments(adam)]
        assert found == [((2, 3), 0.25, 0.5), ((3, 2), 0.5, 2.0)], (
            "Keras' Adam keeps its variables in another order: the fast step would write moments"
            " into the wrong ones, and a saved optimizer would be of no use."
            " See where keras.optimizers.Adam.build puts them, and mend study.training.private"
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
            " keras.utils.clear_session calls now, and mend study.training.private"
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
