"""result.json: what is written is what is read, and what is damaged is said to be."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from energybench.errors import DataError
from energybench.run.result import SCHEMA_VERSION, ChannelEnergy, Failure, Phase, Result

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.none() | NUMBERS
WORDS = st.text(max_size=10)
TIMES = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
ENERGIES = st.builds(
    ChannelEnergy, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, st.integers(0), NUMBERS, NUMBERS, WORDS, st.booleans()
)
PHASES = st.builds(
    Phase,
    name=WORDS,
    epoch=st.none() | st.integers(1),
    start_ns=st.integers(0, 2**63),
    end_ns=st.integers(0, 2**63),
    complete=st.booleans(),
    channels=st.dictionaries(WORDS, ENERGIES, max_size=2),
    values=st.dictionaries(WORDS, NUMBERS, max_size=2),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
RESULTS = st.builds(
    Result,
    run_id=WORDS,
    status=st.sampled_from(["finished", "failed", "interrupted"]),
    failure=st.none() | st.builds(Failure, WORDS, WORDS),
    config=st.dictionaries(WORDS, PLAIN, max_size=3),
    started_at=TIMES,
    ended_at=TIMES,
    phases=st.lists(PHASES, max_size=2).map(tuple),
    metrics=st.dictionaries(WORDS, NUMBERS, max_size=3),
    epochs=st.lists(st.dictionaries(WORDS, NUMBERS, max_size=2).map(lambda row: {**row, "epoch": 1.0}), max_size=2).map(
        tuple
    ),
    tags=st.dictionaries(WORDS, WORDS, max_size=2),
    provenance=st.dictionaries(WORDS, PLAIN, max_size=2),
    overrides=st.lists(WORDS, max_size=2).map(tuple),
    sweep_id=st.none() | WORDS,
    sweep_name=st.none() | WORDS,
    tracking=st.dictionaries(WORDS, WORDS, max_size=2),
)
ENERGY = ChannelEnergy(10.0, 0.1, 0.2, 5.0, None, 40, 0.05, 1.0, "counter", False)
RESULT = Result(
    run_id="abc",
    status="failed",
    failure=Failure("killed", "by SIGKILL"),
    config={"batch": 64},
    started_at="2026-01-01T00:00:00.000+00:00",
    ended_at="2026-01-01T00:01:00.000+00:00",
    phases=(Phase("train", 1, 0, 2_000_000_000, False, {"gpu.0": ENERGY}, {"images": 64.0}),),
    metrics={"energy_j": 10.0},
    epochs=({"epoch": 1.0},),
    overrides=("batch=64",),
)


@settings(max_examples=60, deadline=None)
@given(RESULTS)
def test_from_json_is_the_inverse_of_to_json(result):
    text = result.to_json()
    assert Result.from_json(text) == result
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_never_written(value):
    with pytest.raises(ValueError, match="JSON"):
        Result("a", "finished", None, {}, "", "", metrics={"energy_j": value}).to_json()


def change(**fields):
    data = json.loads(RESULT.to_json())
    for path, value in fields.items():
        *steps, last = path.split("__")
        node = data
        for step in steps:
            node = node[int(step)] if isinstance(node, list) else node[step]
        if value is KeyError:
            del node[last]
        else:
            node[last] = value
    return json.dumps(data)


DAMAGED = {
    "empty": "",
    "half": RESULT.to_json()[: len(RESULT.to_json()) // 2],
    "list": "[]",
    "number": "3",
    "null": "null",
    "another version": change(schema_version=SCHEMA_VERSION + 1),
    "no version": change(schema_version=KeyError),
    "no run id": change(run_id=KeyError),
    "no phases": change(phases=KeyError),
    "unknown field": change(colour="red"),
    "phases are a number": change(phases=3),
    "a phase is a word": change(phases=["train"]),
    "a phase lacks its channels": change(phases__0__channels=KeyError),
    "channels are a list": change(phases__0__channels=[]),
    "an energy lacks a field": change(phases__0__channels={"gpu.0": {"energy_j": 1.0}}),
    "a failure has too much": change(failure__colour="red"),
    "the failure is a word": change(failure="killed"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_said(tmp_path, damage):
    (tmp_path / "result.json").write_text(DAMAGED[damage])
    with pytest.raises(DataError, match="result") as caught:
        Result.read(tmp_path)
    assert str(tmp_path / "result.json") in str(caught.value)


WRONG_KINDS = {
    "metrics": change(metrics=[1, 2]),
    "a metric": change(metrics__energy_j="ten"),
    "status": change(status="perhaps"),
    "tags": change(tags="quality"),
    "config": change(config=None),
    "run id": change(run_id=5),
    "a time": change(phases__0__start_ns="yesterday"),
}


@pytest.mark.parametrize("damage", WRONG_KINDS)
def test_a_field_of_the_wrong_kind_is_said(damage):
    with pytest.raises(DataError):
        Result.from_json(WRONG_KINDS[damage])


def test_what_cannot_be_decoded_and_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"result\.json"):
        Result.read(tmp_path)
    (tmp_path / "result.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"result\.json"):
        Result.read(tmp_path)


def test_read_takes_a_file_or_its_folder(tmp_path):
    path = RESULT.write(tmp_path)
    assert Result.read(tmp_path) == Result.read(path) == RESULT
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_is_torn_leaves_the_old_file(tmp_path, monkeypatch, moment):
    RESULT.write(tmp_path)

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(OSError, match="No space"):
        Result("another", "finished", None, {}, "", "").write(tmp_path)
    assert Result.read(tmp_path) == RESULT
