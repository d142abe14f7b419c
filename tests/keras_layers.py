"""A small model around each layer that Keras has, for what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

IMAGE = (8, 8, 1)
CLASSES = 3

LEFT_OUT = {
    "Discretization": "gives whole numbers, as the next three take them",
    "CategoryEncoding": "",
    "HashedCrossing": "",
    "Hashing": "",
    "IntegerLookup": "opens a vocabulary, as the next two do",
    "StringLookup": "",
    "TextVectorization": "",
    "Equalization": "cannot be part of a functional model in Keras 3.15",
    "FlaxLayer": "needs another library, as the next two do",
    "JaxLayer": "",
    "TorchModuleWrapper": "",
    "InputLayer": "is in every model",
    "Lambda": "carries code",
    "TFSMLayer": "opens a saved model",
    "Layer": "computes nothing, as its subclass Wrapper",
    "Wrapper": "",
    "MaxNumBoundingBoxes": "takes boxes",
    "AugMix": "augments images of 0..255, as the next two",
    "AutoContrast": "",
    "RandAugment": "",
    "Masking": "is for layers that take a mask",
    "ReversibleEmbedding": "takes whole numbers",
}
"""Layers without a model here, and why."""

_OTHERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
    Add AdditiveAttention AlphaDropout Attention Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose
    Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D
    CutMix Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Flatten
    GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GroupNormalization
    GroupQueryAttention Identity LSTM LSTMCell LayerNormalization LeakyReLU MaxPool1D
    MaxPool2D MaxPool3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply
    Normalization PReLU Permute Pipeline RMSNormalization RNN RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax
    Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization
    StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D UpSampling2D
    UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
NAMES = _OTHERS.split()

_SHAPES = ((8, 8, 3), (8, 24), (4, 4, 4, 3), (192,), (4, 4, 4, 3, 1))
_ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    *((), (2,), (2, 2), (0.25,), (0.25, 0.25), ((2, 2),), (2, 2, 2), ((192,),), ("relu",), (2, 24)),
)
_CALLS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda layer, x: layer(x),
    lambda layer, x: layer([x, x]),
    lambda layer, x: layer(x, x),
)


def model_of(name: str) -> Any:
    """A compiled model of images that has this layer behind a convolution."""
    for shape, place, call in product(_SHAPES, range(len(_ARGUMENTS)), _CALLS):
        try:
            return _model(name, shape, _special().get(name, _ARGUMENTS[place]), call)
        except Exception:  # noqa: BLE001 - it wants another shape or other arguments
            continue
    raise AssertionError(f"no model of {name}: say in keras_layers how it is built")


def _special() -> dict[str, tuple[Any, ...]]:
    from keras import layers

    return {
        "Bidirectional": (layers.LSTM(2),),
        "Embedding": (9, 2),
        "EinsumDense": ("abc,cd->abd", (8, 2)),
        "Normalization": (-1, 3 * [0.1], 3 * [2.0]),
        "Permute": ((2, 1),),
        "Pipeline": ([layers.Rescaling(2.0)],),
        "RandomCrop": (8, 8),
        "RNN": (layers.LSTMCell(2),),
        "SpectralNormalization": (layers.Dense(2),),
        "STFTSpectrogram": ("magnitude", 8, 4, 8),
        "StackedRNNCells": ([layers.LSTMCell(2)],),
        "TimeDistributed": (layers.Dense(2),),
    }


def _model(name: str, shape: tuple[int, ...], arguments: tuple[Any, ...], call: Any) -> Any:
    import keras
    from keras import layers

    layer = getattr(layers, name)(*arguments)
    if name.endswith(("Cell", "Cells")):
        layer = layers.RNN(layer)
    images = layers.Input(IMAGE)
    x = layers.Conv2D(3, 3, padding="same", activation="tanh")(images)
    x = call(layer, layers.Reshape(shape)(x))
    x = layers.Flatten()(x[0] if isinstance(x, list | tuple) else x)
    model = keras.Model(images, layers.Dense(CLASSES, "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.run_eagerly = True
    model(np.zeros((2, *IMAGE), np.float32), training=True)
    return model
