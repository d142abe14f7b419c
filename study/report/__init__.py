"""A study as one page to mail: what is in it, its figures, its tables, and the page itself.

Reads the database through `storage` and `plan`; decides and trains nothing.
"""
