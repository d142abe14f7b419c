"""A final model's file: a `.keras` archive that Keras alone can load, with a card inside.

The card (`study.json`) says what the model takes and what its outputs are called; Keras passes it
over. A file is looked through before Keras is asked: it may hold the stock layers that this program
writes and nothing else, so that nothing in it is ever run.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.data.files import refusal
from study.data.picture import FITS, Fit
from study.errors import ModelError

CARD = "study.json"
FORMAT = 1

_LARGEST = 20 * 2**20  # bytes of a description
_LAYERS = {"Activation", "Average", "BatchNormalization", "Conv2D", "Dense", "Dropout", "Flatten"}
_LAYERS |= {"InputLayer", "MaxPooling2D", "Rescaling"}
# What networks of one's own are made of; none of these can carry code, as a Lambda does.
_LAYERS |= {"Add", "AveragePooling2D", "Concatenate", "DepthwiseConv2D", "ELU", "GaussianDropout"}
_LAYERS |= {"GaussianNoise", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "GroupNormalization"}
_LAYERS |= {"LayerNormalization", "LeakyReLU", "Multiply", "PReLU", "RandomFlip", "RandomRotation"}
_LAYERS |= {"RandomTranslation", "RandomZoom", "ReLU", "Reshape", "SeparableConv2D", "Softmax"}
_LAYERS |= {"SpatialDropout2D", "Subtract", "ZeroPadding2D"}
_INITIALIZERS = {"Zeros", "Ones", "GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform"}
_INITIALIZERS |= {"LecunNormal", "LecunUniform", "RandomNormal", "RandomUniform"}
_INITIALIZERS |= {"TruncatedNormal", "VarianceScaling"}
_KNOWN = {
    *(("keras.layers", name) for name in _LAYERS),
    *(("keras.initializers", name) for name in _INITIALIZERS),
    *(("keras.regularizers", name) for name in ("L1", "L2", "L1L2")),
    ("keras", "DTypePolicy"),
    ("keras", "Sequential"),
    ("keras.src.models.functional", "Functional"),
    ("keras.models", "Functional"),
    (None, "__keras_tensor__"),
}


@dataclass(frozen=True)
class Card:
    """What a model takes: pixels 0..255 of ``input_shape``; and what its outputs are called.

    ``labels`` are as the training data has them. ``brightness`` is the mean of its pixels (0..1),
    and ``fit`` how its pictures were brought to their size.
    """

    model: str
    study: str
    labels: tuple[int | str, ...]
    input_shape: tuple[int, int, int]
    brightness: float
    data_fingerprint: str
    members: tuple[str, ...]
    fit: Fit = "pad"
    format: int = FORMAT


def with_card(model: bytes, card: Card) -> bytes:
    """The `.keras` file ``model`` with a card in it."""
    archive = io.BytesIO(model)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(CARD, json.dumps(asdict(card), indent=1))
    return archive.getvalue()


def read_card(path: Path) -> Card:
    """The card of a model that may be loaded; ``ModelError`` says why it may not."""
    if path.suffix != ".keras":  # Keras would take it for a file of another kind
        raise ModelError(f"{path}: not a .keras file; give one that finalize has written")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            config, card = (
                _json(archive, name) if name in names else None for name in ("config.json", CARD)
            )
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a .keras file that finalize wrote") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception:  # noqa: BLE001 - zipfile and json raise what they like for a damaged file
        config = card = None
    if config is None:
        wrong = "not a .keras file, or a damaged one"
        raise ModelError(str(refusal(path, wrong, "give one that finalize has written")))
    for found in _classes(config):
        if found not in _KNOWN:
            raise ModelError(
                f"{path}: holds a {found[1]}, which is not loaded from a file; give a "
                "model of Keras' layers that carry no code"
            )
    if card is None:
        raise ModelError(
            f"{path}: has no {CARD}, so its labels and the scale of its pixels are not known; "
            "give a model that finalize has written"
        )
    return _card(path, card)


def load(path: Path) -> tuple[Any, Card]:
    """The Keras model of a file, and its card; imports Keras. Raises ``ModelError``."""
    card = read_card(path)
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001 - Keras raises what it likes for another version
        why = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: cannot be loaded by Keras {keras.__version__} ({why}); it may be damaged or "
            "of another version"
        ) from None
    classes = len(card.labels)
    if model.input_shape[1:] != card.input_shape or model.output_shape[1:] != (classes,):
        raise ModelError(f"{path}: its {CARD} is that of another model; finalize it again")
    return model, card


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(name)
    return json.loads(archive.read(name))


def _card(path: Path, stored: Any) -> Card:
    version = stored.get("format") if isinstance(stored, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{path}: has format {version}, this version reads {FORMAT}; finalize the study again, "
            "or use the version that wrote it"
        )
    try:
        lists = {name: tuple(stored[name]) for name in ("labels", "input_shape", "members")}
        card: Card | None = Card(**{**stored, **lists})
    except (KeyError, TypeError):
        card = None
    if card is None or not _is_sound(card):
        raise ModelError(f"{path}: its {CARD} is damaged; finalize the study again")
    return card


def _is_sound(card: Card) -> bool:
    """Whether everything in a card is of its kind."""
    texts = (card.model, card.study, card.data_fingerprint, *card.members)
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(label) in (int, str) for label in card.labels)
        and all(type(length) is int for length in card.input_shape)
        and len(card.input_shape) == 3
        and type(card.brightness) in (int, float)
        and card.fit in FITS
    )


def _classes(config: Any) -> Iterator[tuple[Any, Any]]:
    """Module and class of everything that a configuration would make."""
    if isinstance(config, dict):
        if "class_name" in config:
            module = str(config["module"]) if config.get("module") else None
            yield module, str(config["class_name"])
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _classes(item)
