"""The mirror: a tracker (MLflow) made to show what the study's database holds.

`desired` computes the runs that should be shown, `sync` sends a `tracker` what it lacks, `mlflow`
is the one that there is, `follow` does this while a study runs, in a process of its own.
"""
