"""Experiments of the papers as one command each: what is varied, run, and laid out as tables.

Above the training, below the command line.
"""
