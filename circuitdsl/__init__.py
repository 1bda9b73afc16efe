"""Transformer circuits as text files, verified claim by claim against the real model."""

__version__ = "0.1.0"
