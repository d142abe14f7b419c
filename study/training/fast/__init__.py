"""The fast step: what Keras computes for a chain of its layers, to rounding, for less work.

It earns 1.27 and 1.49 times the images a processor second of `fit` with `steps_per_execution=50`,
1.17 and 1.46 of the stock path, for networks of 8 and of 16 filters in
`benchmarks/training_step.py` (docs/log.md, "What fast earns"). Whatever it does not know
(`step.unknown`) trains on the stock path; nothing outside `training` knows which.
"""
