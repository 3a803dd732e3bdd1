"""Keeps indexes on disk as versions, one of which is current.

Imports the other modules of `recall.index`. `versions.py` has the layout of the folder, `store.py` writes and opens a
version, `housekeeping.py` lists, rolls back and deletes versions.
"""
