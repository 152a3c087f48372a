"""Spectral responses and point spread functions, stated by name, number or file."""
