"""Views of a run that show nothing."""

from __future__ import annotations


class Silent:
    def update(self, moment):
        pass
