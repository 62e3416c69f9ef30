"""Files that annotation tools read and write, one module a format; nothing here needs torch.

`returned` reads the files of a folder, `export` writes the files that a tool imports, and `python
-m experiments.annotate` does either by hand.
"""
