"""Read images and ground truth: decoding, sets of images, and a module for each kind of task."""
