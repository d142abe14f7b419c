"""Optuna's view of a study: sampler, pruners, objective and callback.

Usable in plain Optuna code; knows plans, but no worker, and opens no database.
"""
