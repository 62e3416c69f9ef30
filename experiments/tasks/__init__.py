"""Classification, detection and segmentation, one module each; `base` has their common port."""
