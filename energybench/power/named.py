"""Gives the channels of an opened meter other names, so that those of several machines stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from energybench.power.conditions import Condition, TellsConditions
from energybench.power.meter import Channel, Sample, Session, Source


class PrefixedSession:
    """A session whose channels have a prefix; what it reads stays the same."""

    def __init__(self, session: Session, prefix: str) -> None:
        self._session = session
        self._prefix = prefix
        self._sources = {self._renamed(source): source for source in session.sources}

    def _renamed(self, source: Source) -> Source:
        return replace(source, channel=f"{self._prefix}{source.channel}")

    @property
    def channels(self) -> Sequence[Channel]:
        """The session's, by their new names."""
        return [replace(channel, name=f"{self._prefix}{channel.name}") for channel in self._session.channels]

    @property
    def sources(self) -> Sequence[Source]:
        """The session's, of channels by their new names."""
        return list(self._sources)

    def read(self, source: Source) -> Sequence[Sample]:
        """What the sensor says; raises MeterError when it fails."""
        return self._session.read(self._sources[source])

    def close(self) -> None:
        """Closes the session."""
        self._session.close()


class PrefixedTellingSession(PrefixedSession):
    """One that also tells its cards' conditions."""

    def conditions(self) -> Sequence[Condition]:
        """The session's, of channels by their new names."""
        assert isinstance(self._session, TellsConditions)
        return [replace(one, channel=f"{self._prefix}{one.channel}") for one in self._session.conditions()]


def prefixed(session: Session, prefix: str) -> Session:
    """`session` with `prefix` before the name of each channel; itself where there is none."""
    if not prefix:
        return session
    kind = PrefixedTellingSession if isinstance(session, TellsConditions) else PrefixedSession
    return kind(session, prefix)
