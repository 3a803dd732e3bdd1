"""Trains one model on several workers.

Imports the other modules of `recall.model`. `tf_config.py` reads who takes part, `workers.py` joins their gradients,
`shared_candidates.py` lets each rank against all workers' items.
"""
