"""What the guards of `rules/guards.py` know: how to read a text, and when two words say the same or the opposite."""
