"""What to train next, and what is decided: pure functions of a search space and stored rows.

Knows neither Optuna nor a file; one file a strategy.
"""
