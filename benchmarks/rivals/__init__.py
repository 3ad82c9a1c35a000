"""Rivals: one file per stack, each with ``RIVAL``."""
