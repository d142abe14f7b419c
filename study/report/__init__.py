"""A study as one page to mail: its contents, figures, tables, and the page itself.

Reads the database through `storage` and `plan`; decides and trains nothing.
"""
