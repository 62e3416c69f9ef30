"""Classification, detection, segmentation and pose, a module each; `base` is their port."""
