"""Many runs as one program, with JAX: a group of runs of one network trains an epoch together.

`engine` makes the engine and its processes, `groups` decides which runs train together, `program`
is the epoch of a group, `layers` computes layers and augmentation for a group.
"""
