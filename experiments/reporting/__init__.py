"""The local report: from run folders to tables, curves and one page. Imports neither torch nor
Hydra nor wandb, so it starts at once and runs wherever the run folders lie.
"""
