"""Speed of the project, against a plain reference loop and against the limits of the hardware.

`python -m benchmarks.training_step`, `benchmarks.scoring` and `benchmarks.startup`; README.md here.
"""
