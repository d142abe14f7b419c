"""The inputs of a study's runs: its images, or the outputs of its frozen backbone for them.

Those are computed once, in a separate process that uses all cores, and kept in a file beside the
database. The file's name is the hash of images, size and weights; it ends with the SHA-256 of its
content, is mapped and never unpickled, and no link is followed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from study.data.reading import ProgressCallbacks
from study.errors import ModelError, SettingsError, StudyError
from study.files import printable, unfinished, written_whole
from study.space.model_source import BackboneFacts, ModelSource
from study.training.probe import quiet_child
from study.workers.devices import Devices
from study.workers.machine import cores
from study.workers.processes import Shared, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from study.data.dataset import Dataset
    from study.space.settings import Settings
    from study.storage.location import Database


def inputs(
    settings: Settings,
    dataset: Dataset,
    database: Database,
    callbacks: ProgressCallbacks | None,
    devices: Devices,
) -> Dataset:
    """The data that runs train on: ``dataset``, or its images' features from the cache.

    Features that are not in the cache, or damaged there, are computed. Their dataset has no test
    part. Raises ``ModelError`` or ``SettingsError``, in one line.
    """
    source, network = settings.model, settings.network
    if source is None or network is None or network.backbone is None:
        return dataset
    callbacks = callbacks or ProgressCallbacks()
    backbone = network.backbone
    shape = (len(dataset.images), *backbone.shape)
    key = _key(dataset, backbone)
    path = _folder(database) / f"{key}.npy"
    features = _kept(path, shape, callbacks)
    if features is None:
        card = settings.device == "gpu" and bool(devices.cards)
        _compute(path, source, backbone, dataset, "gpu" if card else "cpu", callbacks)
        features = _kept(path, shape, callbacks)
    if features is None:
        raise SettingsError(f"{path}: cannot be read again; make room on the disk and resume")
    return replace(dataset.without_test(), images=features, fingerprint=key)


def _key(dataset: Dataset, backbone: BackboneFacts) -> str:
    """The SHA-256 of what decides the features."""
    facts = (dataset.fingerprint, dataset.input_shape, backbone.digest)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _folder(database: Database) -> Path:
    """The folder of features, which may not be there yet; SettingsError where it is a link."""
    folder = database.features
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise SettingsError(f"{folder}: is not a folder of this program; move it away")
    return folder


def _kept(
    path: Path, shape: tuple[int, ...], callbacks: ProgressCallbacks
) -> NDArray[np.float32] | None:
    """The features in a file of the cache; None, and a log line, where it is damaged."""
    try:
        found = read_array(path, shape)
    except FileNotFoundError:
        return None
    except OSError:
        found = None
    if found is None:
        callbacks.say(f"{printable(path)}: is damaged, so the features are computed again")
    return found


def _compute(
    path: Path,
    source: ModelSource,
    backbone: BackboneFacts,
    dataset: Dataset,
    device: str,
    callbacks: ProgressCallbacks,
) -> None:
    """Compute the features of all images in a separate process, and put them into the cache."""
    for old in unfinished(path):  # of a command that was killed
        old.unlink(missing_ok=True)
    shared, images = share(dataset.images)
    try:
        with written_whole(path) as file:
            question = (source, backbone, shared, images, file.fileno(), device, cores())
            _ask(question, source, len(dataset.images), callbacks)
            os.fsync(file.fileno())
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be written ({error.strerror}); make room, or check the permissions"
        ) from None
    finally:
        os.close(images)


def _ask(
    question: tuple[Any, ...], source: ModelSource, total: int, callbacks: ProgressCallbacks
) -> None:
    """Have the process compute, and pass on how far it is; raises ModelError."""
    what = f"Computing the outputs of {source.backbone}"
    callbacks.say(f"{what} for {total:,} images, once for all runs")
    answer: dict[str, Any] = {}
    with subprocess.Popen(
        [sys.executable, "-c", "from study.running.features import main; main()"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=question[3:5],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pickle.dumps(question))
            process.stdin.close()
            for line in process.stdout:
                answer = json.loads(line)
                if "done" in answer:
                    callbacks.progress(what, answer["done"], total)
        except BrokenPipeError:
            pass  # it has died
        except BaseException:
            process.kill()
            raise
    if "wrong" in answer:
        raise ModelError(answer["wrong"])
    if "written" not in answer:
        raise ModelError(
            f"{source.backbone}: the process that computed its outputs has ended with exit code "
            f"{process.returncode}; if that is -9 the memory had run out"
        )


def main() -> None:
    """Answer the question on standard input."""
    answer_to = quiet_child()
    question = pickle.load(sys.stdin.buffer)  # noqa: S301 - the driver has written it

    def say(**answer: Any) -> None:
        os.write(answer_to, json.dumps(answer).encode() + b"\n")

    try:
        _write_features(*question, say=say)
    except StudyError as error:
        say(wrong=str(error))
    except OSError as error:
        say(wrong=f"the features cannot be written: {error.strerror}; make room")


def _write_features(
    source: ModelSource,
    facts: BackboneFacts,
    shared: Shared,
    images_at: int,
    write_to: int,
    device: str,
    threads: int,
    *,
    say: Callable[..., None],
) -> None:
    from study.training.train import start_tensorflow

    start_tensorflow(threads, device)
    from study.training import backbone

    images = shared.open(images_at)
    model = backbone.recorded(source, images.shape[1:], facts)

    def parts() -> Iterator[NDArray[np.float32]]:
        done = 0
        for part in backbone.features(source, model, images):
            yield part
            done += len(part)
            say(done=done)

    with os.fdopen(write_to, "wb") as file:
        write_array(file, (len(images), *facts.shape), parts())
    say(written=True)


_DTYPE = np.dtype("<f4")
_DIGEST = hashlib.sha256().digest_size


def write_array(
    file: BinaryIO, shape: tuple[int, ...], parts: Iterable[NDArray[np.float32]]
) -> None:
    """Write an array of ``shape`` that comes in parts, in order, along its first axis."""
    header = _header(shape)
    digest = hashlib.sha256(header)
    file.write(header)
    for part in parts:
        content = np.ascontiguousarray(part, _DTYPE).data
        digest.update(content)
        file.write(content)
    file.write(digest.digest())


def read_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """The array of a file that `write_array` has written; None where it is another one, or damaged.

    Raises OSError where there is no such file.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        header = _header(shape)
        length = len(header) + math.prod(shape) * _DTYPE.itemsize
        if os.fstat(opened).st_size != length + _DIGEST:
            return None
        mapped = mmap.mmap(opened, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(opened)
    view = memoryview(mapped)
    whole = hashlib.sha256(view[:length]).digest() == view[length:]
    if view[: len(header)] != header or not whole:
        return None
    return np.frombuffer(view[len(header) : length], _DTYPE).reshape(shape)


def _header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a ``.npy`` file, a multiple of 64 bytes."""
    file = io.BytesIO()
    described = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()
