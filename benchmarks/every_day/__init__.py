"""Measures what a day costs that goes on from the day before, and what its model is worth beside a new one."""
