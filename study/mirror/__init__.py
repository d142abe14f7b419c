"""The mirror: a tracker (MLflow) made to show what the study's database holds.

`desired` computes the runs that should be shown, `sync` sends a `tracker` what it lacks, `mlflow`
is the tracker MLflow, `follow` mirrors a study while it runs, in a child process.
"""
