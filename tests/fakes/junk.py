"""What a hostile or careless hand may write: strategies for hypothesis, and how many examples are tried.

Quick and the same in every run; with ENERGYBENCH_FUZZ=full many more, other ones each time.
"""

from __future__ import annotations

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings

FULL = os.environ.get("ENERGYBENCH_FUZZ") == "full"

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1", "0", "-3", "1e-3", "nan", "all", "true", "auto", "cpu", "${batch}", "${x}", "???", "$"]),
)

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def examples(quick, full):
    """Decorates a hypothesis test: so many examples in a quick run, so many in a full one."""
    return settings(
        max_examples=full if FULL else quick,
        deadline=None,
        derandomize=not FULL,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=list(Phase) if FULL else [Phase.explicit, Phase.generate],
    )
