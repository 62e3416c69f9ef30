"""How fast the project is, against a plain reference loop and against what the hardware can do.

`python -m benchmarks.training_step`, `benchmarks.scoring` and `benchmarks.startup`; README.md here.
"""
