"""What to train next, and what is decided: pure functions of a search space and stored rows.

Knows no file, and only `search` knows Optuna; one file a strategy.
"""
