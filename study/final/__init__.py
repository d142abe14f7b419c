"""From the answer of a study to a classifier: trained anew, tested once, saved, used.

`members` are the final runs, `finalize` trains them and opens the test set, `measure` writes the
files and records the results, `classifier` is the model in a file, `export` the command that makes
LiteRT and ONNX files of it, `registry` sends it to MLflow, `gallery` shows its mistakes, `pictures`
and `predict` use it on other images.
"""
