"""The ten mistakes of the reference code, as edits that put each of them into this code.

1. The ranking loss is fed (b, 1) predictions and (b,) losses, and broadcasts.
2. The pool is scored by a freshly initialized network, and training goes on in eval mode.
3. The discriminator's optimizer is given the parameters of another network.
4. The best epoch on the test set is reported, of a running average over random crops.
5. What is labeled already is selected again.
6. One CSV, overwritten every cycle, with the chosen rows only and full paths.
7. Any text is true; a resume restores weights only; devices are hard-coded.
8. The detection loss of an image is a sum over its boxes, so that hard means many objects.
9. Five passes with dropout where ten are announced.
10. Scoring by fours, filters that cost O(N k), a Python loop over every pair of a batch.

`python -m tests.mutations` applies each to a copy of the project and runs the tests that must fail
there. `mistakes` describes them; `edits` finds the code by its name, wherever it stands.
"""
