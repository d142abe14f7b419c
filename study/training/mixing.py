"""Mixup under a model's own `train_step`: two images are one, and its loss is that of both labels.

Zhang et al., arXiv:1710.09412. A share of the loss with one label and the rest of it with the other
is the loss with the mixed label of every loss that is linear in its label, as cross-entropy is; so
labels stay as the loss takes them: class numbers, one-hot or numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from study.errors import TrainingFailed

Tensor = Any


@dataclass
class _Second:
    """The second images of the step; ``met`` once the loss has used them."""

    share: Tensor
    labels: Tensor
    weights: Tensor | None
    met: bool = False


class Mixing:
    """Mixes the batches of a compiled model, whose ``compute_loss`` it replaces on the instance."""

    def __init__(self, model: keras.Model) -> None:
        self._model, self._stock = model, model.compute_loss
        self._second: _Second | None = None
        model.compute_loss = self._loss

    def step(self, images: Tensor, labels: Tensor, weights: Tensor | None, share: Tensor) -> None:
        """A step of the model on these images, each mixed with that at its place from the end.

        ``share`` is that of the first of the two, from 0.5 to 1. Raises TrainingFailed if the
        model's own ``train_step`` does not compute its loss as Keras does.
        """
        flip = keras.ops.flip
        second = _Second(share, flip(labels, 0), None if weights is None else flip(weights, 0))
        self._second = second
        mixed = share * images + (1 - share) * flip(images, 0)
        self._model.train_step((mixed, labels, weights))
        self._second = None
        if not second.met:
            raise TrainingFailed(
                "mixup: the model's train_step does not call compute_loss; call it there, or take "
                "mixup out of the space"
            )

    def _loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        **training: bool,
    ) -> Tensor:
        loss, second = self._stock(x, y, y_pred, sample_weight, **training), self._second
        if second is None:
            return loss
        second.met = True
        other = self._stock(x, second.labels, y_pred, second.weights, **training)
        return second.share * loss + (1 - second.share) * other
