"""Measures how fast items that no training knows are recalled, beside a model that was trained again."""
