"""The compiled epoch: the mathematics of Keras' layers and Adam for less work, or Keras itself."""
