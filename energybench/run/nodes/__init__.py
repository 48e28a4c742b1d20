"""Several machines that train as one: one supervisor each, with its own meter, and the first of them in the middle.

The first node waits for the others at the rendezvous, compares what they are about to do, and keeps a connection to
each. Over these they begin and end together, tell each other of failures, and exchange words once a second, by which
one that is gone is missed and by which the clocks are told (`energybench.power.alignment`). At the end each node is
given the phases of all workers by its own clock and works out what its devices took in them; the first adds up.

The training processes themselves meet as the engine has it, at an address which the first node finds for them.
"""

from __future__ import annotations

from pathlib import Path

from energybench.run.nodes.alone import Alone
from energybench.run.nodes.first import First
from energybench.run.nodes.other import Other
from energybench.run.preflight import Plan


def nodes_of(plan: Plan, directory: Path) -> Alone:
    """The nodes of a run, seen from this one.

    Args:
        plan: of the run.
        directory: the run's folder.
    """
    options = plan.experiment.nodes
    if options.count == 1:
        return Alone()
    return Other(plan) if options.number else First(plan, directory)
