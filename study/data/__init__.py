"""Labelled images: from a name or a file to a frozen dataset, and the split of one repeat."""
