"""Devices, precision, processes, cores and memory."""
