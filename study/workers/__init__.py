"""Where runs train: in this process, on this machine's cores, or on a Dask cluster.

`engine` is the seam: submit, stop, next event. It knows neither Optuna nor the database.
"""
