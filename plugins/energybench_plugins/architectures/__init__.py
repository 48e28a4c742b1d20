"""Networks, described."""
