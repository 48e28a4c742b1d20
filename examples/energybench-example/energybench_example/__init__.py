"""What energybench-example brings: one module a part."""
