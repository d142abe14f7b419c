"""A saved Keras model as the folder that MLflow knows as a model, made without Keras or MLflow.

The layout is the one of ``mlflow.keras.save_model``: ``mlflow.keras.load_model`` reads it, and so
does ``mlflow.pyfunc`` where a server is to serve it.
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


def write_model(folder: Path, model: bytes, run_id: str, settings: Settings) -> None:
    """Write the folder of the ``.keras`` file ``model`` of the MLflow run ``run_id``."""
    requirements = [
        f"{name}=={settings.versions[name]}"
        for name in ("tensorflow", "keras", "numpy")
        if name in settings.versions
    ]
    python = settings.versions.get("python", "")
    files = {
        "data/model.keras": model,
        "data/keras_module.txt": b"keras",
        "MLmodel": _yaml(_description(len(model), run_id, settings)),
        "requirements.txt": "\n".join(["mlflow", *requirements, ""]).encode(),
        "python_env.yaml": _yaml({"python": python, "dependencies": ["-r requirements.txt"]}),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _description(size: int, run_id: str, settings: Settings) -> dict[str, Any]:
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
            "python_function": {
                "data": "data",
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
        described["signature"] = {
            "inputs": _tensor((-1, *settings.data.input_shape)),
            "outputs": _tensor((-1, settings.data.num_classes)),
            "params": None,
        }
    return described


def _tensor(shape: tuple[int, ...]) -> str:
    tensor = {"dtype": "float32", "shape": list(shape)}
    return json.dumps([{"type": "tensor", "tensor-spec": tensor}])


def _yaml(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()  # every JSON text is YAML
