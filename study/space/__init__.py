"""The search space and a study's settings: checked once, then frozen values that all
others read."""
