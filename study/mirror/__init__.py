"""The mirror: MLflow made to show what the study's database holds.

`target` says where, `projection` and `parent_runs` what should be there, `transfer` sends what is
missing, `sync` makes a pass over a study, `follow` makes passes while it runs, in a `subprocess`.
"""
