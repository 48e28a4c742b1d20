"""Sweeps on a cluster: cells are handed to a scheduler, run on its nodes, and collected as their results appear.

`options` is what a launcher is told, `request` what a cell asks for, `ticket` what a node gets and leaves, `node` what
runs there, `watch` what waits here, `slurm` and `ray` the two schedulers. Only those two know one by name.
"""
