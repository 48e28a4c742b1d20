"""Errors a user can act on. Each message says what is wrong, with which value, and what to do."""

import re

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_CONDITION, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
"""What the command line ends with; 3: `compare --fail-if` met its condition."""


def reason(error: BaseException) -> str:
    """The one line of an error that says what is wrong; MXNet's messages are tracebacks, which begin with another."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Traceback"):
        telling = [line for line in lines if re.match(r"(\w*Error: |Error in operator)", line)]
        return (telling or lines)[0].removeprefix("MXNetError: ")
    return lines[0] if lines else type(error).__name__


class EnergybenchError(Exception):
    """Base of every error that is the user's to mend; anything else is a bug and keeps its traceback."""


class ConfigError(EnergybenchError):
    """The configuration cannot be run as written."""


class PluginError(EnergybenchError):
    """A plugin is broken, ambiguous or breaks its contract."""


class DeviceError(EnergybenchError):
    """A device that was asked for is not there or cannot be used."""


class MeterError(EnergybenchError):
    """A meter cannot read its sensor."""


class WindowError(EnergybenchError):
    """A window of `measure` is opened, named or read in a way that means nothing."""


class DataError(EnergybenchError):
    """A data set is missing, damaged or does not fit the request."""


class LimitError(EnergybenchError):
    """A run has passed a limit beyond which it is not worth going on."""


class TrackingError(EnergybenchError):
    """The tracking store cannot be reached or used."""


class ClusterError(EnergybenchError):
    """A scheduler refuses what is asked of it, or does not answer."""
