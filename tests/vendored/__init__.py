"""Tests of the re-implemented repositories."""
