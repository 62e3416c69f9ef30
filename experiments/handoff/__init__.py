"""Files that annotation tools read and write, one module a format; nothing here needs torch.

`returned` reads whatever lies in a folder, `export` writes what a tool imports, and `python -m
experiments.handoff` converts by hand.
"""
