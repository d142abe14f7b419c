"""The one-at-a-time sweep with repeats, for OptunaHub."""

from study import OneAtATimeSampler, SweepPruner, run_spec

__all__ = ["OneAtATimeSampler", "SweepPruner", "run_spec"]
