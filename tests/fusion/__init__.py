"""A package, because a module here and one elsewhere may have the same name (test_contract)."""
