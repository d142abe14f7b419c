"""A small model around each layer that Keras has, for what must hold for all of them."""

from __future__ import annotations

from typing import Any

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

_LINE, _ROW, _PLANE, _SPACE, _FILM = (192,), (8, 24), (8, 8, 3), (4, 4, 4, 3), (4, 4, 4, 3, 1)
_LAYERS: dict[tuple[tuple[int, ...], tuple[Any, ...]], str] = {
    (_PLANE, ()): """
        ActivityRegularization Add AdditiveAttention Attention Average BatchNormalization
        Concatenate ContrastLimitedAdaptiveHistogramEqualization Cropping2D CutMix ELU Embedding
        Flatten GlobalAveragePooling2D GlobalMaxPool2D Identity LayerNormalization LeakyReLU
        MaxPool2D Maximum Minimum MixUp Multiply Normalization PReLU Pipeline RMSNormalization
        RandomColorJitter RandomCrop RandomElasticTransform RandomErasing RandomFlip
        RandomGaussianBlur RandomGrayscale RandomInvert RandomPerspective RandomShear ReLU Softmax
        Solarization SpectralNormalization Subtract TimeDistributed UnitNormalization UpSampling2D
        ZeroPadding2D
    """,
    (_PLANE, (0.25,)): """
        AlphaDropout Dropout GaussianDropout GaussianNoise RandomBrightness
        RandomColorDegeneration RandomContrast RandomHue RandomRotation RandomSaturation
        RandomSharpness RandomZoom SpatialDropout2D
    """,
    (_PLANE, (2,)): """
        AdaptiveAveragePooling2D AdaptiveMaxPooling2D AveragePooling2D Dense DepthwiseConv2D Dot
        RandomPosterization Rescaling
    """,
    (_PLANE, (2, 2)): """
        CenterCrop Conv2D Conv2DTranspose ConvLSTM1D GroupNormalization MultiHeadAttention
        Resizing SeparableConv2D
    """,
    (_PLANE, (0.25, 0.25)): "RandomTranslation",
    (_PLANE, ("relu",)): "Activation",
    (_PLANE, ((192,),)): "Reshape",
    (_ROW, ()): """
        Bidirectional Cropping1D EinsumDense GlobalAveragePooling1D GlobalMaxPool1D MaxPool1D
        Permute RNN STFTSpectrogram StackedRNNCells UpSampling1D ZeroPadding1D
    """,
    (_ROW, (2,)): """
        AdaptiveAveragePooling1D AdaptiveMaxPooling1D AveragePooling1D DepthwiseConv1D GRU GRUCell
        LSTM LSTMCell SimpleRNN SimpleRNNCell
    """,
    (_ROW, (2, 2)): "Conv1D Conv1DTranspose SeparableConv1D",
    (_ROW, (2, 2, 2)): "GroupQueryAttention",
    (_ROW, (0.25,)): "SpatialDropout1D",
    (_SPACE, ()): """
        Cropping3D GlobalAveragePooling3D GlobalMaxPool3D MaxPool3D UpSampling3D ZeroPadding3D
    """,
    (_SPACE, (2,)): "AdaptiveAveragePooling3D AdaptiveMaxPooling3D AveragePooling3D",
    (_SPACE, (2, 2)): "Conv3D Conv3DTranspose ConvLSTM2D",
    (_SPACE, (0.25,)): "SpatialDropout3D",
    (_FILM, (2, 2)): "ConvLSTM3D",
    (_LINE, (2,)): "MelSpectrogram RepeatVector",
}
"""Layers by the shape of their input, without the batch, and by their arguments."""

_WAYS = {name: way for way, names in _LAYERS.items() for name in names.split()}
NAMES = sorted(_WAYS)

_OF_A_LIST = (
    *("Add", "AdditiveAttention", "Attention", "Average", "Concatenate", "Dot"),
    *("Maximum", "Minimum", "Multiply", "Subtract"),
)
_OF_TWO = ("GroupQueryAttention", "MultiHeadAttention")
"""Layers that take a list of two inputs, and those that take two inputs."""


def model_of(name: str) -> Any:
    """A compiled model of images that has this layer behind a convolution."""
    import keras
    from keras import layers

    shape, arguments = _WAYS[name]
    layer = getattr(layers, name)(*_made_of_layers().get(name, arguments))
    if name.endswith(("Cell", "Cells")):
        layer = layers.RNN(layer)
    images = layers.Input(IMAGE)
    x = layers.Conv2D(3, 3, padding="same", activation="tanh")(images)
    x = layers.Reshape(shape)(x)
    inputs = [[x, x]] if name in _OF_A_LIST else [x, x] if name in _OF_TWO else [x]
    x = layer(*inputs)
    x = layers.Flatten()(x[0] if isinstance(x, list | tuple) else x)
    model = keras.Model(images, layers.Dense(CLASSES, "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model


def _made_of_layers() -> dict[str, tuple[Any, ...]]:
    """Arguments of single layers."""
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
