"""The data sets that Keras has, with the names of their classes; fetched once."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from study.data.backend import imported_quietly
from study.data.parts import Part, Parts
from study.errors import DataError

_CLASSES = {
    "mnist": "",
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "cifar10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
    "cifar100": (
        "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,"
        "butterfly,camel,can,castle,caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,"
        "crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,forest,fox,girl,hamster,house,"
        "kangaroo,keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,motorcycle,"
        "mountain,mouse,mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,"
        "plain,plate,poppy,porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,"
        "skunk,skyscraper,snail,snake,spider,squirrel,streetcar,sunflower,sweet_pepper,table,tank,"
        "telephone,television,tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,willow_tree,wolf,"
        "woman,worm"
    ),
}
NAMED = tuple(_CLASSES)


def _fetched(name: str) -> Any:
    """What Keras' own `load_data` gives; it fetches what is not in its cache yet."""
    with imported_quietly():
        data = importlib.import_module(f"keras.datasets.{name}")
    with redirect_stdout(io.StringIO()):  # a failed download is told in one sentence
        return data.load_data()


def read(name: str, fetch: Callable[[str], Any] = _fetched) -> Parts:
    """The parts of one of `NAMED`. Raises `DataError` where ``fetch`` fails for whatever reason."""
    try:
        (x_train, y_train), (x_test, y_test) = fetch(name)
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise DataError(
            f"{name}: cannot be downloaded ({' '.join(str(error).split())}); "
            f"give the path of an .npz file with it instead"
        ) from error
    classes = np.array(_CLASSES[name].split(","))
    if len(classes) > 1:
        y_train, y_test = classes[y_train], classes[y_test]
    return (
        Part(x_train, y_train, f"{name}, x_train", f"{name}, y_train"),
        Part(x_test, y_test, f"{name}, x_test", f"{name}, y_test"),
    )
