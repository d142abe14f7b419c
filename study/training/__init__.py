"""One training run: network, recipe, epochs one by one, a checkpoint after each, a model.

Knows neither trial nor database. `trainer` holds the compiled epoch of Keras' own steps,
`quick_layers` the layers that compute faster under them.
"""
