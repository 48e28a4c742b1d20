"""energybench's own plugins: everything with a vendor's, a framework's or a network's name."""
