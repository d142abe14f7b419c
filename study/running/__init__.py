"""A study at work: `prepare` checks everything first, `launch` wires its parts, `driver` runs it.

It knows Optuna's study, the workers and the observers, and is the only room that writes a study.
"""
