"""Many runs as one program, with JAX: a group of runs of one network trains an epoch together.

A step is Keras' own; `program` is the epoch of many runs, `layers` what is computed another way
there, `turns` which runs train next. Nothing imports this but the process that trains so
(`study.workers.grouped_process`).
"""
