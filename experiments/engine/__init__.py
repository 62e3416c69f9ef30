"""Devices, precision, processes, cores, memory and locks."""
