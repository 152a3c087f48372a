"""Training of supervised methods: scenes from files, crops of them, runs and their files.

Above the readers and the engine, below the command line.
"""
