"""Many runs as one program, with JAX: a group of runs of one network trains an epoch together.

`engine` makes the engine, `worker` is what its process does, `groups` which runs train together,
`program` the epoch of a group, `layers` and `augment` what is computed in another way there.
"""
