"""A saved Keras model as the folder that MLflow knows as a model, made without Keras or MLflow.

The layout is the one of ``mlflow.keras.save_model``: ``mlflow.keras.load_model`` reads it, and so
does ``mlflow.pyfunc`` where a server is to serve it. There is no signature: MLflow would refuse
every other type of number than the one it names, and images come as uint8, float32 and float64.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.space.settings import Settings

NAME = "model"
"""The artifact's name: ``runs:/ID/model``."""


def write_model(
    folder: Path, model: bytes, run_id: str, settings: Settings, brightest: int = 1
) -> None:
    """Write the folder of the ``.keras`` file ``model`` of the MLflow run ``run_id``.

    ``brightest`` is the number of a white pixel: the model takes 0..``brightest``.
    """
    requirements = [
        f"{name}=={settings.versions[name]}"
        for name in ("tensorflow", "keras", "numpy")
        if name in settings.versions
    ]
    python = settings.versions.get("python", "")
    files = {
        "data/model.keras": model,
        "data/keras_module.txt": b"keras",
        "MLmodel": _yaml(_description(len(model), run_id, settings, brightest)),
        "requirements.txt": "\n".join(["mlflow", *requirements, ""]).encode(),
        "python_env.yaml": _yaml({"python": python, "dependencies": ["-r requirements.txt"]}),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _description(size: int, run_id: str, settings: Settings, brightest: int) -> dict[str, Any]:
    keras = settings.versions.get("keras", "")
    described: dict[str, Any] = {
        "artifact_path": NAME,
        "flavors": {
            "keras": {
                "data": "data",
                "keras_backend": "tensorflow",
                "keras_version": keras,
                "save_exported_model": False,
            },
            "python_function": {  # without "data": MLflow's loader adds the flavor's own
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.keras",
                "python_version": settings.versions.get("python", ""),
            },
        },
        "model_size_bytes": size,
        "run_id": run_id,
        "utc_time_created": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    }
    if settings.data is not None:
        shape = ", ".join(map(str, settings.data.input_shape))
        described["metadata"] = {
            "takes": f"images of shape (n, {shape}), pixels of 0..{brightest}",
            "gives": f"probabilities of shape (n, {settings.data.num_classes})",
            "classes": list(settings.data.label_names),
        }
        if settings.model and settings.network and settings.network.classes:
            described["metadata"]["needs"] = (
                f"{', '.join(settings.network.classes)} of {Path(settings.model.path).name}, which "
                "is an artifact of the study's run: run it, then load the model"
            )
    return described


def _yaml(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()  # every JSON text is YAML
