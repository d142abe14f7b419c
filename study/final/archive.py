"""A final model's file: a `.keras` archive that Keras alone can load, with a card inside.

The card (`study.json`) describes the model's inputs and outputs; Keras ignores it. A file is
checked before Keras loads it: it may hold plain parts of Keras, and classes of a file that the user
gives beside it. Code inside the file is never run.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from study.data.picture import FITS, Fit
from study.data.pixels import BYTES, Scales
from study.data.reading import refusal
from study.errors import ModelError
from study.final import runtimes
from study.space.model_source import ModelSource
from study.training import keras_file

CARD = runtimes.CARD
FORMAT = 1

_LARGEST = 2**26  # numbers of one image, 0.3 GB


@dataclass(frozen=True)
class Needed:
    """The file of a custom model, whose ``classes`` are needed to load the saved model.

    ``digest`` is the file's SHA-256.
    """

    file: str
    function: str
    digest: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, source: ModelSource, classes: tuple[str, ...]) -> Self | None:
        """The classes that models of a study need of its network's file; None if there are none."""
        file = Path(source.path).name
        return cls(file, source.function, source.digest, classes) if classes else None

    @property
    def names(self) -> str:
        return ", ".join(name.rpartition(">")[2] for name in self.classes)

    def source(self, path: Path) -> ModelSource:
        """The file, which the user gives to be run; ModelError where it is another one."""
        try:
            text = path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"--network {path}: cannot be read ({error})") from None
        given = ModelSource(str(path.resolve()), self.function, text)
        if given.digest != self.digest:
            raise ModelError(
                f"--network {path}: is not the {self.file} that the model was made with (SHA-256 "
                f"{given.digest[:12]}, not {self.digest[:12]}); the study's report has its text"
            )
        return given


@dataclass(frozen=True)
class Card:
    """The inputs of a model, pixels 0..255 of ``input_shape``, and the names of its outputs.

    ``labels`` are as the training data has them, none where they are numbers. ``brightness`` is the
    mean of its pixels (0..1), ``fit`` how its pictures were brought to their size, and ``scales``
    which of its stored numbers were black and white. ``needed`` is the code that it takes.
    ``temperature`` calibrates its probabilities; None if they are not calibrated. ``digest`` is the
    SHA-256 of an exported model.
    """

    model: str
    study: str
    labels: tuple[int | str, ...]
    input_shape: tuple[int, int, int]
    brightness: float
    data_fingerprint: str
    members: tuple[str, ...]
    fit: Fit = "pad"
    scales: Scales = field(default_factory=lambda: BYTES)
    needed: Needed | None = None
    temperature: float | None = None
    digest: str = ""
    format: int = FORMAT


def with_card(model: bytes, card: Card) -> bytes:
    """The `.keras` file ``model`` with a card in it."""
    archive = io.BytesIO(model)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(CARD, json.dumps(asdict(card), indent=1))
    return archive.getvalue()


def read_card(path: Path) -> Card:
    """The card of a model that may be loaded; ``ModelError`` says why it may not."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Card, list[str]]:
    """A model's card, and the names of classes in it that are not Keras' own: the card has them."""
    special = path.exists() and not path.is_file()  # a named pipe would be waited for
    if path.suffix in runtimes.SUFFIXES and not special:
        return _card(path, runtimes.read(path)[1]), []
    if path.suffix != ".keras" or special:  # Keras takes another ending for another kind of file
        raise ModelError(f"{path}: not a .keras file; give one that finalize has written")
    try:
        with zipfile.ZipFile(path) as archive:
            described = keras_file.entry(archive, "config.json")
            card = keras_file.entry(archive, CARD) if CARD in archive.namelist() else None
            foreign = keras_file.foreign(described)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a .keras file that finalize wrote") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception:  # noqa: BLE001 - zipfile and json raise what they like for a damaged file
        wrong = "not a .keras file, or a damaged one"
        raise ModelError(str(refusal(path, wrong, "give one that finalize has written"))) from None
    if card is None and not foreign:
        raise ModelError(
            f"{path}: has no {CARD}, so its labels and the scale of its pixels are not known; "
            "give a model that finalize has written"
        )
    found = None if card is None else _card(path, card)
    needed = found.needed.classes if found is not None and found.needed is not None else ()
    for name in foreign:
        if name not in needed:
            raise ModelError(
                f"{path}: holds a {name}, which is not loaded from a file; give a "
                "model of Keras' layers that carry no code"
            )
    assert found is not None
    return found, foreign


def source_of(path: Path, card: Card, network: Path | None) -> ModelSource | None:
    """The file that a model needs, which the user gives as ``network``; None if it needs none.

    The file will be run. Raises ``ModelError`` if it is not given, or is another file.
    """
    if card.needed is None:
        return None
    if network is None:
        raise ModelError(
            f"{path}: needs {card.needed.names} of {card.needed.file} (SHA-256 "
            f"{card.needed.digest[:12]}): give that file with --network, which runs it"
        )
    return card.needed.source(network)


def load(path: Path, source: ModelSource | None = None) -> tuple[Any, Card]:
    """The model of a file, a function of pixels, and its card. Raises ``ModelError``.

    Of a ``.keras`` file it is the Keras model. ``source`` is the file it needs, and is run.
    """
    if path.suffix in runtimes.SUFFIXES:
        model, stored = runtimes.read(path)
        card = _card(path, stored)
        return runtimes.load(path, model, card.input_shape, len(card.labels) or 1), card
    card, foreign = _read(path)
    import keras

    from study.training import user_code

    own = user_code.classes(source) if source else {}
    for name in foreign:
        if name not in own:  # the card may say what it likes
            raise ModelError(f"{path}: needs {name}, which is in no file that was given")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True, custom_objects=own)
    except Exception as error:  # noqa: BLE001 - Keras raises what it likes for another version
        why = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: cannot be loaded by Keras {keras.__version__} ({why}); it may be damaged or "
            "of another version"
        ) from None
    classes = len(card.labels) or 1  # a number
    if model.input_shape[1:] != card.input_shape or model.output_shape[1:] != (classes,):
        raise ModelError(f"{path}: its {CARD} is that of another model; finalize it again")
    return model, card


def _card(path: Path, stored: Any) -> Card:
    version = stored.get("format") if isinstance(stored, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{path}: has format {version}, this version reads {FORMAT}; finalize the study again, "
            "or use the version that wrote it"
        )
    try:
        lists = {name: tuple(stored[name]) for name in ("labels", "input_shape", "members")}
        needed = stored.get("needed") and _needed(**stored["needed"])
        scales: Scales = {kind: (black, white) for kind, (black, white) in stored["scales"].items()}
        card: Card | None = Card(**{**stored, **lists, "scales": scales, "needed": needed})
    except (AttributeError, KeyError, TypeError, ValueError):
        card = None
    if card is None or not _is_sound(card):
        raise ModelError(f"{path}: its {CARD} is damaged; finalize the study again")
    return card


def _is_sound(card: Card) -> bool:
    """Whether every field of a card has its type and range."""
    texts = (card.model, card.study, card.data_fingerprint, card.digest, *card.members)
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(label) in (int, str) for label in card.labels)
        and all(type(length) is int for length in card.input_shape)
        and len(card.input_shape) == 3
        and min(card.input_shape) > 0
        and math.prod(card.input_shape) <= _LARGEST
        and all(type(end) in (int, float) for ends in card.scales.values() for end in ends)
        and all(black < white for black, white in card.scales.values())
        and type(card.brightness) in (int, float)
        and card.fit in FITS
        and (card.temperature is None or _is_positive(card.temperature))
    )


def _is_positive(number: object) -> bool:
    return isinstance(number, float) and math.isfinite(number) and number > 0


def _needed(file: str, function: str, digest: str, classes: list[str]) -> Needed:
    if not all(isinstance(text, str) for text in (file, function, digest, *classes)):
        raise TypeError("needed")
    return Needed(file, function, digest, tuple(classes))
