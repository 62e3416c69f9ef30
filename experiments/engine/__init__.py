"""Devices, precision, processes, memory and locks."""
