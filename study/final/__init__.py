"""From the answer of a study to a classifier: trained anew, tested once, saved, used.

`members` says what is trained and trains it, `export` makes of it files that need Keras alone,
`finalize` opens the test set and records what it says, `registry` shows it in MLflow, `gallery`
draws what the model gets wrong, `pictures` and `predict` use a model on anybody's images.
"""
