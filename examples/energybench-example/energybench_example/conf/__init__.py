"""YAML files for Hydra; a package, so that `pkg://energybench_example.conf` finds them wherever they are installed."""
