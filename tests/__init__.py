"""The tests, which mirror the packages file by file."""
