"""The fast step: what Keras computes for a chain of its layers, to rounding, for less work.

It earns 1.2, 1.7 and 1.9 times the images a second of `fit` with `steps_per_execution=50`, and 1.2,
1.5 and 1.8 times those of the stock path, for networks of 8, 16 and 32 filters in
`benchmarks/training_step.py` (docs/log.md, "The fast room is fenced"). Whatever it does not know
(`step.unknown`) trains on the stock path; nothing outside `training` knows which.
"""
