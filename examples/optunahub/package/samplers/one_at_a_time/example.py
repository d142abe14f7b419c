"""A small scikit-learn classifier, swept one hyperparameter at a time, three repeats each."""

import optuna
import optunahub
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

module = optunahub.load_module("samplers/one_at_a_time")
images, labels = load_digits(return_X_y=True)


def objective(trial: optuna.Trial) -> float:
    """Validation accuracy of one run; repeat r has the same split and seed for every option."""
    seed = module.run_spec(trial).repeat
    x, x_held, y, y_held = train_test_split(images / 16, labels, test_size=0.3, random_state=seed)
    network = MLPClassifier(
        hidden_layer_sizes=(trial.suggest_int("units", 1, 1024),),
        learning_rate_init=trial.suggest_float("rate", 1e-5, 1, log=True),
        max_iter=30,
        random_state=seed,
    )
    return float(network.fit(x, y).score(x_held, y_held))


if __name__ == "__main__":
    sampler = module.OneAtATimeSampler(
        {"units": [16, 64], "rate": [0.001, 0.01]}, start={"units": 16}, repeats=3
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective)
    print(sampler.summary_frame(study).to_string())
