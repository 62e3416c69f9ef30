"""Where images and ground truth come from: decoding, sets of images, a module a kind of task."""
