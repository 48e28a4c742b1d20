"""The one door to NVIDIA's driver library: opens it, finds cards by UUID, names errors, opens it anew when it is gone.

pynvml (package nvidia-ml-py) is imported when the door is opened, not before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from energybench.errors import MeterError

Answer = TypeVar("Answer")

UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 1, 2, 3, 4, 6
DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = 9, 12, 13
GPU_IS_LOST, RESET_REQUIRED = 15, 16

IN_A_CONTAINER = "in a container, start it with the NVIDIA container toolkit (--gpus all)"
AGAIN = "it is tried again with the next reading"
ERRORS = {
    UNINITIALIZED: ("UNINITIALIZED", "the driver was reloaded; it is opened anew by itself"),
    INVALID_ARGUMENT: ("INVALID_ARGUMENT", "the driver does not know this card or field; update the driver"),
    NOT_SUPPORTED: ("NOT_SUPPORTED", "this card has no such sensor"),
    NO_PERMISSION: ("NO_PERMISSION", "ask the administrator for read access to /dev/nvidia*; " + IN_A_CONTAINER),
    NOT_FOUND: ("NOT_FOUND", "no such card or no data; `nvidia-smi -L` lists the cards"),
    8: ("INSUFFICIENT_POWER", "connect the card's power cables"),
    DRIVER_NOT_LOADED: ("DRIVER_NOT_LOADED", "load it (`sudo modprobe nvidia`); " + IN_A_CONTAINER),
    10: ("TIMEOUT", AGAIN),
    11: ("IRQ_ISSUE", "the kernel sees an interrupt problem of this card; see `dmesg`"),
    LIBRARY_NOT_FOUND: ("LIBRARY_NOT_FOUND", "install the NVIDIA driver; " + IN_A_CONTAINER),
    FUNCTION_NOT_FOUND: ("FUNCTION_NOT_FOUND", "the driver is too old for it; update the driver"),
    GPU_IS_LOST: ("GPU_IS_LOST", "the card fell off the bus; see `dmesg` for an Xid, reset the card or reboot"),
    RESET_REQUIRED: ("RESET_REQUIRED", "reset the card (`sudo nvidia-smi --gpu-reset`) or reboot"),
    17: ("OPERATING_SYSTEM", "the system blocks the driver; see `dmesg` and the container's device rules"),
    18: ("LIB_RM_VERSION_MISMATCH", "the driver was updated while in use; reboot, or reload its kernel modules"),
    20: ("MEMORY", AGAIN),
    21: ("NO_DATA", AGAIN),
    27: ("NOT_READY", AGAIN),
    999: ("UNKNOWN", AGAIN + "; if it stays, see `dmesg`"),
}
"""NVML's codes (nvml.h, nvmlReturn_t, without NVML_ERROR_) and what the user can do."""

GONE = (UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED)
"""After these a card answers again only when the library was opened anew."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
"""Opening anew can take a second on a large server, so it is tried ever more seldom."""


def meter_error(code: int, what: str) -> MeterError:
    """NVML's error `code` in words.

    Args:
        code: what the driver returned.
        what: what was asked for, such as "energy counter of TITAN X".
    """
    name, remedy = ERRORS.get(code, (str(code), "see NVIDIA's NVML manual, nvmlReturn_t"))
    return MeterError(f"NVML: {what}: NVML_ERROR_{name}; {remedy}")


class Driver:
    """The driver library, opened; a context manager.

    Attributes:
        nvml: the module pynvml.

    Raises:
        MeterError: no pynvml, no library or no driver.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise MeterError(f"NVML: {error}; pip install nvidia-ml-py") from error
        self.nvml: Any = pynvml
        self._handles: dict[str, Any] = {}
        self._lost: set[str] = set()
        self._open = False
        self._wait_s = FIRST_WAIT_S
        self._retry_at: float | None = None
        self.ask("driver", self._init)

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the library; a second call does nothing."""
        if self._open:
            self._open = False
            with suppress(self.nvml.NVMLError):
                self.nvml.nvmlShutdown()

    def ask(self, what: str, function: Callable[[], Answer]) -> Answer:
        """The answer of `function`, which calls NVML; raises MeterError where it fails."""
        try:
            return function()
        except self.nvml.NVMLError as error:
            raise meter_error(error.value, what) from error

    def code(self, uuid: str, function: Callable[[Any], object]) -> int:
        """The error code of `function` on a card; 0 where it answers."""
        try:
            function(self._handle(uuid))
        except self.nvml.NVMLError as error:
            return int(error.value)
        return 0

    def read(self, uuid: str, what: str, function: Callable[[Any], Answer]) -> Answer:
        """The answer of `function` on the handle of the card `uuid`.

        A card that is gone, or a driver that was reloaded, makes it fail until they are back; then it goes on.

        Raises:
            MeterError: NVML fails.
        """
        try:
            answer = function(self._handle(uuid))
        except self.nvml.NVMLError as error:
            self._note(uuid, error.value)
            raise meter_error(error.value, what) from error
        if uuid in self._lost:
            self._lost.discard(uuid)
            self._wait_s = self._wait_s if self._lost else FIRST_WAIT_S
        return answer

    def _init(self) -> None:
        self.nvml.nvmlInit()
        self._open = True

    def _handle(self, uuid: str) -> Any:
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._reopen()
        if uuid not in self._handles:
            self._handles[uuid] = self.nvml.nvmlDeviceGetHandleByUUID(uuid)
        return self._handles[uuid]

    def _note(self, uuid: str, code: int) -> None:
        if code not in GONE:
            return
        self._lost.add(uuid)
        self._handles.pop(uuid, None)
        if self._retry_at is None:
            self._retry_at = time.monotonic() + self._wait_s

    def _reopen(self) -> None:
        """A failure counts as one of the card that asked, whose reading then plans the next try."""
        self.close()
        self._handles.clear()
        self._retry_at = None
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self._init()
