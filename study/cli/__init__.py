"""The command line: commands declare their options, call one function each, and exit in one place.

It may know every room below; nothing imports it.
"""
