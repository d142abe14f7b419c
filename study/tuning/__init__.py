"""What Optuna sees of a study: sampler, pruners, objective and callback.

Usable in plain Optuna code; knows plans, never a worker or a database of its own.
"""
