"""Figures, and how they are shown. Pure but for writing the files that were asked for."""
