"""Whether a part works on this machine: the answer every plugin's `check()` gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """Works, or why not and what to do.

    Attributes:
        ok: True if it can be used here and now.
        detail: what was found, or why it cannot be used.
        remedy: what the user can do about it; or, if ok, how to get something better; empty if nothing.
    """

    ok: bool
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.detail if self.ok or not self.remedy else f"{self.detail}; {self.remedy}"
