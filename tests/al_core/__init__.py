"""Tests of the library, file by file."""
