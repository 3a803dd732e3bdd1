"""The `recall` command; nothing imports it.

Imports all packages, each inside the command that needs it, so that `recall --help` is instant. Start at `main.py`.
"""
