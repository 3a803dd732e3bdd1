"""A finished run for others: one SavedModel from raw features to candidates, and vectors for other engines."""
