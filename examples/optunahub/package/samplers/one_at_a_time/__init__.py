"""The one-at-a-time sweep with repeats, for OptunaHub."""

from study import OneAtATimeSampler, SweepPruner, slot

__all__ = ["OneAtATimeSampler", "SweepPruner", "slot"]
