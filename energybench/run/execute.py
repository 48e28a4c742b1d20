"""One plan becomes one Result, on disk and in hand."""

from __future__ import annotations

import sys
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from energybench.credentials import redact
from energybench.errors import reason
from energybench.experiment import AUTO, Experiment, Quality
from energybench.power.condition_summary import Summary, Times, summarise
from energybench.power.condition_summary import flags as condition_flags
from energybench.power.meter import Session
from energybench.power.monitor import Observed
from energybench.power.quality import flags
from energybench.power.series import Columns, Key
from energybench.power.timeline import Timeline
from energybench.power.trace import write_trace
from energybench.run import reserve
from energybench.run.attempts import CUT, SNAPSHOT_FILE, cut, earlier, goes_on, joined
from energybench.run.metrics import IDLE, MOST_INPUT_WAIT, TRAIN, epochs, in_scope, metrics
from energybench.run.nodes import nodes_of
from energybench.run.nodes.alone import Alone
from energybench.run.nodes.results import (
    beside_energy,
    metrics_of_nodes,
    phases_of,
    provenance_of,
    scope_of,
    tags_of,
    with_edges_in_doubt,
)
from energybench.run.observation import Observation, Span
from energybench.run.preflight import Plan
from energybench.run.provenance import provenance
from energybench.run.result import (
    OUTPUT_FILES,
    RESULT_FILE,
    TRACE_FILE,
    UNREADABLE_FILES,
    Attempt,
    ChannelEnergy,
    Failure,
    Phase,
    Result,
    Status,
)
from energybench.run.supervisor import Supervisor, View
from energybench.whole import PARTIAL, remove_partial

PhaseKey = tuple[str, int | None]
"""A phase's name and its epoch."""

SETTLES_NS = 60 * 10**9
"""So long after its end a phase's readings, those that its edges are drawn by included, are all there."""


@dataclass(frozen=True)
class Place:
    """Where a run belongs.

    Attributes:
        directory: where its files go.
        name: what the run is called: 'lenet batch=64'.
        follows: whether another cell of its sweep ran before it.
        overrides: the command line's overrides.
        sweep_id: of the sweep it is a cell of, or None.
        sweep_name: readable name of the sweep, or None.
        tracking: where the run is being recorded, see Result.
    """

    directory: Path
    name: str = "run"
    follows: bool = False
    overrides: tuple[str, ...] = ()
    sweep_id: str | None = None
    sweep_name: str | None = None
    tracking: dict[str, str] = field(default_factory=dict)


def new_id() -> str:
    """An identifier that is unique for ever."""
    return uuid.uuid4().hex


def execute(plan: Plan, place: Place, view: View, run_id: str | None = None) -> Result:
    """Runs a plan and writes power.parquet, events.jsonl and result.json. Never raises for what happens in the run.

    A bug of ours ends the run as failed too, its traceback on standard error: the sweep goes on.
    """
    run_id, started_at = run_id or new_id(), _now()
    attempts: tuple[Attempt, ...] = ()
    code: dict[str, str] = {}

    settled = Settled()

    def made(supervisor: Supervisor, seen: Observation, phases: tuple[Phase, ...] | None = None) -> Result:
        if phases is None:
            phases = _phases(seen, timelines(supervisor.sessions, seen.readings))
        return _result(plan, place, seen, phases, supervisor.sessions, started_at, run_id, code, attempts)

    def snapshot(supervisor: Supervisor) -> None:
        now_ns, observed = time.monotonic_ns(), supervisor.observed()
        seen = replace(supervisor.seen, failure=CUT, end_ns=now_ns, observed=observed)
        phases = settled.phases(seen, supervisor)
        with suppress(OSError):  # on a full disk the run goes on without
            made(supervisor, seen, phases).write(place.directory, SNAPSHOT_FILE)

    try:
        code = plan.code  # that of now, when the workers read it
        if goes_on(place.directory, plan.experiment.checkpoint):
            attempts = earlier(place.directory)
        _clear(place.directory)
        reserve.keep(place.directory)
        with closing(nodes_of(plan, place.directory)) as nodes:
            supervisor = Supervisor(
                plan, place.directory, view, name=place.name, follows=place.follows, nodes=nodes, saved=snapshot
            )
            try:
                supervisor.run()
            except Exception as error:
                supervisor.seen.failure = internal(error)
            except KeyboardInterrupt:  # a further one, while the run was being ended
                supervisor.seen.failure = supervisor.seen.failure or Failure("interrupted", "stopped")
            _write_trace(place, supervisor)
            try:
                seen = nodes.shared(supervisor.seen)
                result = nodes.gathered(made(supervisor, seen), partial(_of_all_nodes, plan, seen, nodes))
            except KeyboardInterrupt:  # no more patience with the others: what is known here
                seen = replace(supervisor.seen, failure=supervisor.seen.failure or Failure("interrupted", "stopped"))
                result = _of_all_nodes(plan, seen, nodes, made(supervisor, seen), {})
        result = replace(result, sweep_id=place.sweep_id, sweep_name=place.sweep_name)  # a node's copy is in its own
    except OSError as error:  # before anything was measured
        failure = reserve.full(error, str(place.directory), "nothing was run")
        return failed(place, _public(plan.experiment), failure, run_id)
    except Exception as error:
        return failed(place, _public(plan.experiment), internal(error), run_id)
    _keep(result, place.directory)
    return result


def _keep(result: Result, directory: Path) -> None:
    """Writes the result into the room that was kept for it; where even that fails, whoever looks on is told."""
    with suppress(OSError):
        reserve.free(directory)
        (directory / SNAPSHOT_FILE).unlink(missing_ok=True)
        remove_partial(directory)  # of a worker that was killed while it saved a checkpoint
    try:
        result.write(directory)
    except OSError as error:
        print(f"energybench: {directory / RESULT_FILE}: {error.strerror or error}; it is not kept", file=sys.stderr)


def internal(error: Exception) -> Failure:
    """The failure that a bug of ours, or a full disk, makes of a run; the traceback goes to standard error."""
    traceback.print_exception(error)
    return Failure("internal", f"energybench failed, please report it: {type(error).__name__}: {redact(reason(error))}")


def _clear(directory: Path) -> None:
    """Makes the folder, without what an earlier run left in it; a checkpoint to go on from stays."""
    directory.mkdir(parents=True, exist_ok=True)
    for pattern in (RESULT_FILE, SNAPSHOT_FILE, *OUTPUT_FILES, PARTIAL):
        for old in directory.glob(pattern):
            old.unlink()


def failed(place: Place, config: Mapping[str, object], failure: Failure, run_id: str | None = None) -> Result:
    """The result of a run that could not be started; written like any other."""
    now = _now()
    result = Result(
        run_id or new_id(), "failed", failure, dict(config), now, now, overrides=place.overrides,
        sweep_id=place.sweep_id, sweep_name=place.sweep_name,
    )  # fmt: skip
    with suppress(OSError):
        place.directory.mkdir(parents=True, exist_ok=True)
    _keep(result, place.directory)
    return result


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _write_trace(place: Place, supervisor: Supervisor) -> None:
    """Without a trace the result still holds what was made of it."""
    if not supervisor.sessions:
        return
    channels = [channel for session in supervisor.sessions for channel in session.channels]
    try:
        write_trace(place.directory / TRACE_FILE, supervisor.seen.readings, channels)
    except OSError as error:
        supervisor.seen.failure = supervisor.seen.failure or reserve.full(error, TRACE_FILE, "its energies are kept")


def _result(
    plan: Plan,
    place: Place,
    seen: Observation,
    phases: tuple[Phase, ...],
    sessions: Sequence[Session],
    started_at: str,
    run_id: str,
    code: dict[str, str],
    attempts: Sequence[Attempt],
) -> Result:
    channels = [channel for session in sessions for channel in session.channels]
    kinds = {channel.name: channel.kind for channel in channels}
    scope = in_scope(kinds, plan.scope)
    summaries = _summaries(seen, phases)
    all_phases = joined(attempts, phases, scope)
    found = _metrics(plan, seen, all_phases, scope, list(kinds), len(attempts)) | _condition_metrics(summaries)
    found |= _unreadable(place.directory)
    beside = _found(plan, seen, summaries, scope) | ({"cut_attempt"} if cut(attempts) else set())
    if found.get("input_wait_fraction", 0.0) > MOST_INPUT_WAIT:
        beside.add("input_bound")
    tags = _tags(plan, all_phases, sessions, scope, beside)
    failure = seen.failure or _quality_failure(plan.experiment.quality, tags["quality"])
    return Result(
        run_id=run_id,
        status=_status(failure),
        failure=failure,
        config=_public(plan.experiment),
        started_at=started_at,
        ended_at=_now(),
        phases=phases,
        metrics=found,
        epochs=epochs(all_phases, scope),
        tags=tags,
        conditions={name: summary.to_json() for name, summary in summaries.items()},
        provenance=provenance(plan.boards, sessions, seen.environment) | {"code": code},
        overrides=place.overrides,
        sweep_id=place.sweep_id,
        sweep_name=place.sweep_name,
        tracking=place.tracking,
        scope=tuple(scope),
        attempts=tuple(attempts),
    )


def _of_all_nodes(plan: Plan, seen: Observation, nodes: Alone, own: Result, others: Mapping[int, Result]) -> Result:
    """The result of the run, of that of the first node and of the others'; of a node that is alone its own."""
    told = nodes.told()
    if not told:
        return own
    phases = phases_of(own.phases, others)
    scope = scope_of(own.scope, others, nodes.lost())
    all_phases = joined(own.attempts, phases, scope)
    channels = dict.fromkeys(name for phase in phases for name in phase.channels)
    tags = tags_of(own.tags, others)
    failure = seen.failure or _quality_failure(plan.experiment.quality, tags["quality"])
    kept = {key: value for key, value in own.metrics.items() if key not in metrics(own.phases, own.scope, own.scope)}
    found = beside_energy(kept, others) | _metrics(plan, seen, all_phases, scope, list(channels), len(own.attempts))
    return replace(
        own,
        status=_status(failure),
        failure=failure,
        phases=phases,
        metrics=found | metrics_of_nodes(all_phases, scope),
        epochs=epochs(all_phases, scope),
        tags=tags,
        conditions=own.conditions | {key: value for one in others.values() for key, value in one.conditions.items()},
        provenance=provenance_of(own.provenance, others, told),
        scope=scope,
    )


def _public(experiment: Experiment) -> dict[str, Any]:
    """The configuration without the credentials that a tracking address may hold."""
    config = experiment.to_json()
    uri = config["tracking"]["uri"]
    config["tracking"]["uri"] = redact(uri) if uri else uri
    return config


def _metrics(
    plan: Plan,
    seen: Observation,
    phases: Sequence[Phase],
    scope: Sequence[str],
    channels: Sequence[str],
    earlier_attempts: int,
) -> dict[str, float]:
    resumed = plan.experiment.checkpoint.resume not in (None, AUTO)
    target = None if resumed else plan.experiment.budget.target_accuracy  # what went before is not in these phases
    flops = plan.architecture.training_flops or seen.training_flops
    found = metrics(phases, scope, channels, flops, target)
    if earlier_attempts:
        found["attempts"] = 1.0 + earlier_attempts
    if plan.memory_bytes is not None:
        found["memory_predicted_bytes"] = float(plan.memory_bytes)
    if seen.memory_bytes is not None:
        found["memory_peak_bytes"] = float(seen.memory_bytes)
    return found


def _status(failure: Failure | None) -> Status:
    if failure is None:
        return "finished"
    return "interrupted" if failure.kind == "interrupted" else "failed"


def timelines(sessions: Sequence[Session], readings: Mapping[Key, Columns]) -> dict[str, Timeline]:
    """Channel name -> its timeline."""
    return {
        channel.name: Timeline(channel, session.sources, readings)
        for session in sessions
        for channel in session.channels
    }


class Settled:
    """The phases of a run at each of its checkpoints.

    A phase that has been over for a while is worked out once, and of the readings only those from then on are looked
    at: what a checkpoint costs does not grow with the run.
    """

    def __init__(self) -> None:
        self._known: dict[PhaseKey, Phase] = {}

    def phases(self, seen: Observation, supervisor: Supervisor) -> tuple[Phase, ...]:
        """All phases until now."""
        starts = [span.start_ns for span in seen.spans if (span.name, span.epoch) not in self._known]
        since_ns = min(starts, default=seen.end_ns) - SETTLES_NS
        lines = timelines(supervisor.sessions, supervisor.readings(since_ns))
        phases = _phases(seen, lines, self._known)
        over = (phase for phase in phases if phase.complete and phase.end_ns < seen.end_ns - SETTLES_NS)
        self._known.update({(phase.name, phase.epoch): phase for phase in over})
        return phases


def _phases(
    seen: Observation, lines: Mapping[str, Timeline], known: Mapping[PhaseKey, Phase] | None = None
) -> tuple[Phase, ...]:
    """Spans of all ranks brought together: a phase begins with the earliest and ends with the latest.

    Args:
        seen: what was seen of them.
        lines: channel -> its power.
        known: phases that are worked out already.
    """
    known, groups = known or {}, dict[PhaseKey, list[Span]]()
    for span in seen.spans:
        groups.setdefault((span.name, span.epoch), []).append(span)
    phases = [known.get(key) or _phase(spans, seen, lines) for key, spans in groups.items()]
    return tuple(sorted(phases, key=lambda phase: phase.start_ns))


def _phase(spans: Sequence[Span], seen: Observation, lines: Mapping[str, Timeline]) -> Phase:
    first, doubt_s = min(spans, key=lambda span: span.rank), seen.edge_doubt_s
    start = min(span.start_ns for span in spans)
    end = max(span.end_ns or seen.end_ns for span in spans)
    energies = {name: line.energy(start, end) for name, line in lines.items()}
    return Phase(
        name=first.name,
        epoch=first.epoch,
        start_ns=start,
        end_ns=end,
        complete=all(span.end_ns is not None for span in spans),
        channels={
            name: with_edges_in_doubt(energy, lines[name], (start, end), doubt_s) for name, energy in energies.items()
        },
        values={key: value for key, value in first.values.items() if key != "fraction"} | _longest_wait(spans),
    )


def _longest_wait(spans: Sequence[Span]) -> dict[str, float]:
    """Workers that train together wait for the one whose data come last."""
    waits = [span.values["input_wait_s"] for span in spans if "input_wait_s" in span.values]
    return {"input_wait_s": max(waits)} if waits else {}


def _together(parts: Sequence[ChannelEnergy]) -> ChannelEnergy:
    """What the flags look at, of all training phases of one channel: the readings add up, the worst coverage counts."""
    if not parts:
        return ChannelEnergy(None, None, None, None, None, 0, 0.0, 0.0, "", False)
    worst = min(parts, key=lambda part: part.coverage)
    missing = any(part.energy_j is None for part in parts)
    return replace(
        worst,
        energy_j=None if missing else worst.energy_j,
        readings=sum(part.readings for part in parts),
        doubts=tuple(sorted({doubt for part in parts for doubt in part.doubts})),
    )


def _summaries(seen: Observation, phases: Sequence[Phase]) -> dict[str, Summary]:
    """Channel -> its conditions, for the channels whose session told any."""
    idle = next(((phase.start_ns, phase.end_ns) for phase in phases if phase.name == IDLE), None)
    trained = [(phase.start_ns, phase.end_ns) for phase in phases if phase.name == TRAIN]
    times = Times(idle, trained, None if seen.workers_ns is None else (seen.workers_ns, seen.end_ns))
    by_channel: dict[str, list[Observed]] = {}
    for one in seen.observed:
        by_channel.setdefault(one.condition.channel, []).append(one)
    return {name: summarise(observed, times) for name, observed in by_channel.items()}


def _found(plan: Plan, seen: Observation, summaries: Mapping[str, Summary], scope: Sequence[str]) -> set[str]:
    """The flags beside those of the readings."""
    cooldown_c = plan.experiment.measure.cooldown_c
    told = [condition_flags(summaries[name], cooldown_c) for name in scope if name in summaries]
    return seen.flags.union(*told)


def _quality_failure(quality: Quality, tag: str) -> Failure | None:
    """What `quality.strict` makes of flags."""
    speaking = [flag for flag in tag.split(",") if flag != "ok" and flag not in quality.ignore]
    if not (quality.strict and speaking):
        return None
    listed = ",".join(speaking)
    return Failure("quality", f"quality.strict: {listed} (docs/quality.md); to let it pass: quality.ignore=[{listed}]")


def _unreadable(directory: Path) -> dict[str, float]:
    """How many samples the workers could not read, each counted once; absent where all could be read."""
    named = {
        line.split("\t")[0]
        for path in directory.glob(UNREADABLE_FILES)
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    return {"unreadable_samples": float(len(named))} if named else {}


def _condition_metrics(summaries: Mapping[str, Summary]) -> dict[str, float]:
    """Temperatures, clocks, limits and slowdowns under the names of the summary, a channel each."""
    found: dict[str, float] = {}
    for channel, summary in summaries.items():
        told = summary.to_json()
        slowdowns = told.pop("slowdowns", {})
        told |= {f"slowdown_{reason}": share for reason, share in slowdowns.items()}
        numbers = {key: value for key, value in told.items() if isinstance(value, int | float) and value is not True}
        found |= {f"{key}.{channel}": float(value) for key, value in numbers.items() if value is not False}
    return found


def _tags(
    plan: Plan, phases: Sequence[Phase], sessions: Sequence[Session], scope: Sequence[str], beside: set[str]
) -> dict[str, str]:
    channels = [channel for session in sessions for channel in session.channels if channel.name in scope]
    estimated = [channel.origin for channel in channels if channel.estimated]
    trained = [phase for phase in phases if phase.name == TRAIN]
    found = flags(_together([phase.channels[name] for phase in trained if name in phase.channels]) for name in scope)
    tags = {
        "energy_source": "estimated" if estimated else "measured",
        "energy_scope": plan.scope,
        "meter": plan.meters[0].name,
        "engine": plan.experiment.engine.name,
        "quality": ",".join(sorted(beside.union(found))) or "ok",
        "device": plan.devices[0].name,
        "generation": plan.devices[0].generation,
    }
    if estimated:
        tags["tdp_source"] = "; ".join(dict.fromkeys(estimated))
    if not plan.dataset.labelled:
        tags["data"] = "synthetic"
    elif plan.dataset.generated:
        tags["data"] = "generated"
    return tags
