# %% [markdown]
# # An objective of your own, swept one hyperparameter at a time
#
# Everything here but the sampler is plain Optuna. Run it as a script, or cell by cell.

# %%
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import study

images, labels = load_digits(return_X_y=True)


# %% [markdown]
# Repeat r of every configuration gets the same split, so options are compared in pairs.


# %%
def objective(trial: optuna.Trial) -> float:
    """Share of held-out images that a support vector machine gets wrong."""
    seed = study.run_spec(trial).repeat
    x, x_held, y, y_held = train_test_split(images, labels, test_size=0.3, random_state=seed)
    model = SVC(
        C=trial.suggest_float("C", 0.01, 100, log=True),
        gamma=trial.suggest_float("gamma", 1e-5, 1e-2, log=True),
        kernel=trial.suggest_categorical("kernel", ["rbf", "linear"]),
    )
    return float(1 - model.fit(x, y).score(x_held, y_held))


# %%
sampler = study.OneAtATimeSampler(
    {"C": [0.1, 1.0, 10.0], "gamma": [1e-4, 1e-3], "kernel": ["linear", "rbf"]},
    start={"C": 1.0, "gamma": 1e-4, "kernel": "rbf"},
    repeats=3,
)
optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna_study = optuna.create_study(direction="minimize", sampler=sampler)
optuna_study.optimize(objective, n_jobs=2)

# %%
print(sampler.summary_frame(optuna_study).to_string())
for stage in sampler.summary(optuna_study):
    assert stage.selected is not None
    print(f"{stage.name}: {stage.selected.value}")
