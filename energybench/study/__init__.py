"""Many results: tables, statistics, decisions."""
