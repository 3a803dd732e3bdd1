"""The same work as others do it, each in the way that its own documentation recommends."""
