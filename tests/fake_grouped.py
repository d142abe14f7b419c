"""Processes that train in groups as the real one does, to a driver's eye, without JAX."""

import os
from multiprocessing.connection import Connection

import fake_trainer

from study.errors import SettingsError
from study.workers.engine import EpochReported, RunFinished
from study.workers.grouped_process import Setup, Stop


def main(pipe: Connection, setup: Setup) -> None:
    """An epoch of every run, and again; runs leave checkpoints as with `fake_trainer`."""
    runs = {}
    while True:
        while not runs or pipe.poll():
            try:
                order = pipe.recv()
            except EOFError:
                return
            if isinstance(order, Stop):
                runs.pop(order.number, None)
                continue
            for number, run in order.runs:
                runs[number] = fake_trainer.train(run, setup.dataset, checkpoints=setup.checkpoints)
        for number, training in list(runs.items()):
            try:
                pipe.send(EpochReported(number, next(training)))
            except StopIteration as finished:
                del runs[number]
                pipe.send(RunFinished(number, finished.value))


def dies_at_once(pipe: Connection, setup: Setup) -> None:
    os._exit(7)


def cannot_train(pipe: Connection, setup: Setup) -> None:
    pipe.send(SettingsError("JAX sees no GPU"))
    pipe.recv()
