"""Errors a user can act on. Each message says what is wrong, with which value, and what to do."""


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


class DataError(EnergybenchError):
    """A data set is missing, damaged or does not fit the request."""


class TrackingError(EnergybenchError):
    """The tracking store cannot be reached or used."""
