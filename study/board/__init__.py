"""What optuna-dashboard shows of a study beside its trials: notes and a figure, kept up to date."""
