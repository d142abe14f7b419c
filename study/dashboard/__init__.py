"""What optuna-dashboard shows of a study, and the server that shows it on this machine.

A projection of the database; training never waits for it.
"""
