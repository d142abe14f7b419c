"""The fast step: what Keras computes for a chain of its layers, to rounding, for less work.

It earns 1.27 times the images a processor second of `fit` with `steps_per_execution=50`, and 1.17
of the stock path, for the smallest network of `benchmarks/training_step.py`; more with larger
kernels, where convolutions go by way of Fourier coefficients (docs/log.md, "Convolutions by way of
Fourier coefficients"). Whatever it does not know (`step.unknown`) trains on the stock path, with
the same checkpoints; nothing outside `training` knows which.
"""
