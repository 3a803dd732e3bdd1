"""Defines the `recall` command; nothing imports this package.

Imports all packages, each inside the command that needs it, so that `recall --help` is instant. Start at `main.py`.
"""
