"""Devices that hold frames and touch pixels."""
