"""One training run: network, recipe, epochs one by one, a checkpoint after each, a model.

Knows neither trial nor database. `fast` holds the compiled epoch of the networks it knows.
"""
