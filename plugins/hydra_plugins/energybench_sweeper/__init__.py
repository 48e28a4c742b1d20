"""Hydra's basic sweeper with the cells in an order of ours. Hydra takes sweepers from this namespace alone."""

from __future__ import annotations

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from energybench.order import ordered


class OrderedSweeper(BasicSweeper):
    """Hands the launcher the cells in their order: a job's number and folder tell its place in it.

    Args:
        max_batch_size, params: as of the basic sweeper.
        shuffle: seed of the order; None: as written.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, shuffle: int | None = None
    ) -> None:
        super().__init__(max_batch_size, params)
        self._shuffle = shuffle

    def split_arguments(  # type: ignore[override]  # static there, and called as a method
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The cells in batches of `max_batch_size`; None: all in one."""
        return list(self.split_overrides_to_chunks(ordered(overrides, self._shuffle), max_batch_size))
