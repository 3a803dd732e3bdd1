"""Lets models run the feed of simulated communities, and compares what comes of it: `recall loop`, as a sweep."""
