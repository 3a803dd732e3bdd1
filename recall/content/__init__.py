"""Content vectors by themselves: judged before any model is trained on them, and searched."""
