"""A study at work: check everything first, wire its parts together, drive it to the end.

Knows Optuna's study, the workers and who looks on; the only room that writes a study.
"""
