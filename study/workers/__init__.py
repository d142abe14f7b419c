"""Where runs train: in this process, on this machine's cores or GPUs, or on a Dask cluster.

`engine` is the interface (submit, stop, next event), `engines` the table of engines. They know
neither Optuna nor the database.
"""
