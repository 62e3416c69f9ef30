"""How fast the project is, against a plain reference loop and against what the hardware can do.

`python -m benchmarks.training_step`, `python -m benchmarks.scoring`, `python -m benchmarks.startup`.
"""
