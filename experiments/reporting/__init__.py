"""The local report: from run folders to tables, figures and one page.

Nothing here imports torch, Hydra or wandb, so a report can be made wherever the run folders are.
"""
