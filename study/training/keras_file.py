"""What a saved model is made of, read from its `.keras` file; nothing of it is made, no Keras.

The stock layers, operations and initializers that are listed here carry no code, as a Lambda does,
and open no file, as a StringLookup may: a file that holds nothing else is safe to load.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

_LARGEST = 20 * 2**20  # bytes of a description

_PLAIN = {
    "keras.layers": """
        InputLayer Dense EinsumDense Flatten Reshape Permute RepeatVector Identity
        Conv1D Conv2D Conv1DTranspose Conv2DTranspose DepthwiseConv1D DepthwiseConv2D
        SeparableConv1D SeparableConv2D AveragePooling1D AveragePooling2D MaxPooling1D MaxPooling2D
        GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D
        UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D
        Add Average Concatenate Dot Maximum Minimum Multiply Subtract
        Activation ReLU LeakyReLU PReLU ELU Softmax
        BatchNormalization GroupNormalization LayerNormalization RMSNormalization
        UnitNormalization SpectralNormalization Normalization Rescaling Resizing CenterCrop
        Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D
        RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation
        RandomZoom Attention AdditiveAttention MultiHeadAttention GroupQueryAttention Embedding
        TimeDistributed""",
    "keras.initializers": """
        Constant Identity Ones Zeros GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal
        LecunUniform Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling""",
    "keras.regularizers": "L1 L2 L1L2 OrthogonalRegularizer",
    "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
    "keras.src.ops.numpy": """
        Absolute Add Clip Concatenate Divide Exp Expm1 ExpandDims Flip GetItem Log Log1p Matmul Max
        Maximum Mean Min Minimum Multiply Negative Pad Power Prod Repeat Reshape Roll Sqrt Square
        Squeeze Stack Std Subtract Sum Tanh Tile Transpose TrueDivide Var""",
    "keras.src.ops.core": "Cast",
    "keras.src.ops.nn": """
        AveragePool Celu Elu Gelu HardSigmoid HardSilu LeakyRelu LogSigmoid LogSoftmax MaxPool
        Relu Relu6 Selu Sigmoid Silu Softmax Softplus Softsign""",
    "keras": "DTypePolicy Sequential",
    "keras.models": "Functional",
    "keras.src.models.functional": "Functional",
}
_KNOWN = {(module, name) for module, names in _PLAIN.items() for name in names.split()}
_DATA = {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"}


def description(file: str | Path | IO[bytes]) -> Any:
    """The description (JSON) in a ``.keras`` file; raises what zipfile and json do."""
    with zipfile.ZipFile(file) as archive:
        return entry(archive, "config.json")


def entry(archive: zipfile.ZipFile, name: str) -> Any:
    """The JSON of a file in an archive."""
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(name)
    return json.loads(archive.read(name))


def count_parameters(model: bytes) -> int | None:
    """How many numbers the weights of a ``.keras`` file are; None where it is none.

    States of random generators, which are whole numbers, and of the optimizer are no weights.
    """
    import h5py

    counts: list[int] = []

    def see(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and found.dtype.kind == "f":
            counts.append(0 if name.startswith("optimizer/") else found.size)

    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content) as weights:
            weights.visititems(see)
    except (zipfile.BadZipFile, KeyError, OSError):
        return None
    return sum(counts)


def foreign(described: Any, own: Collection[str] = ()) -> list[str]:
    """What a description would make that is none of Keras' plain parts, nor named in ``own``.

    The names are those that Keras looks up: of a registered class ``package>Name``.
    """
    return sorted({name for name in _foreign(described) if name not in own})


def _foreign(described: Any) -> Iterator[str]:
    if isinstance(described, dict):
        if "class_name" in described:
            name, key = str(described["class_name"]), described.get("registered_name")
            if name == "function":  # of which Keras writes no module
                yield str(described.get("config") or name)
            elif name not in _DATA and not _is_known(str(described.get("module")), name, key):
                yield str(key or name)
        described = list(described.values())
    if isinstance(described, list):
        for item in described:
            yield from _foreign(item)


def _is_known(module: str, name: str, key: object) -> bool:
    return (module, name) in _KNOWN and key in (None, name)
