"""Draws the figures of the site from results of real runs: `draw.py`; `measure.py` measures what no benchmark keeps."""
