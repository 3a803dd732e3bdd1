"""Holds the ground that every other package stands on: errors, tables, times, ragged arrays and atomic files.

Imports nothing of recall. Read `errors.py` for the exceptions that users meet, `tables.py` for the file formats,
`artifacts.py` for how a folder is published whole or not at all.
"""
