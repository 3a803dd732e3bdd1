"""Turns an exposure log and a catalogue into point-in-time training examples.

Imports `recall.core` and `recall.config`; never TensorFlow, Beam or ScaNN. In the order of the data flow: `events.py`
reads the log -> `splits.py` cuts it -> `event_counts.py` counts it -> `posterior.py` and `click_history.py` look up
what was known at a moment -> `examples.py` joins both -> `tfrecords.py` encodes them -> `prepared_files.py` holds the
tables beside them -> `prepared.py` opens the published directory.
"""
