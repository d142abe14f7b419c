"""Search space and settings of a study: checked once, then frozen values that all others read."""
