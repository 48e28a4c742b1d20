"""Waiting for the work of frameworks."""
