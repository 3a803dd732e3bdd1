"""A package, because a module here and one above it may have the same name (test_history)."""
