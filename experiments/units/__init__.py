"""The units that a query counts: whole images, or regions of images."""
