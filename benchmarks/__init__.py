"""Measurements of the package on real pairs: quality, time and memory."""
