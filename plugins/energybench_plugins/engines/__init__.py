"""Frameworks that train."""
