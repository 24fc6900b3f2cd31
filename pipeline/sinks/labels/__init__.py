"""Masks and annotations as outputs: indexed PNG, COCO, JSON lines."""
