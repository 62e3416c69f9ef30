"""Tests of the vendored networks."""
