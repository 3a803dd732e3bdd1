"""Candidate recall that does not forget new content: gated two-tower models on TensorFlow, Beam and ScaNN."""

import os

# TensorFlow Recommenders runs only under Keras 2, and TensorFlow reads this when it is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
