"""Reads sensors and turns their readings into joules."""
