"""Any result file and any checkpoint is read, or refused in one line; none is executed, none fills the memory."""

from __future__ import annotations

import copy
import io
import json
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from junk import VALUES, examples

from energybench.console import console
from energybench.errors import DataError
from energybench.run.checkpoint import META, Progress, load, save
from energybench.run.result import ChannelEnergy, Failure, Phase, Result
from energybench.study.summary import details, table, verdict
from energybench.tracking import record

ENERGY = ChannelEnergy(99.0, 0.5, 1.0, 99.0, 120.0, 10, 0.1, 1.0, "counter", False)
RESULT = json.loads(
    Result(
        run_id="a",
        status="failed",
        failure=Failure("killed", "x"),
        config={"model": {"name": "lenet", "options": {}}, "batch": 64, "dataset": {"name": "digits"}},
        started_at="2026-01-02T03:04:05+00:00",
        ended_at="2026-01-02T03:04:15+00:00",
        phases=(Phase("train", 1, 5, 6_000_000_000, True, {"gpu.0": ENERGY}, {"loss": 1.0, "images": 64}),),
        metrics={"energy_j": 198.0, "time_s": 3.0, "energy_j.gpu.0": 198.0},
        epochs=({"epoch": 1, "energy_j": 99.0},),
        tags={"energy_scope": "gpu", "energy_source": "measured", "quality": "ok"},
        conditions={"gpu.0": {"temperature_mean_c": 50.0}},
        provenance={"devices": [{"uuid": "x", "name": "y"}], "git": {"commit": "1"}},
        overrides=("batch=64",),
        tracking={"run_id": "x"},
    ).to_json()
)


def _paths(node, path=()):
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _paths(value, (*path, key))


PATHS = [path for path in _paths(RESULT) if path]


def changed(changes):
    """The result with values put into it, or taken out of it (...)."""
    data = copy.deepcopy(RESULT)
    for path, value in changes:
        node = data
        for step in path[:-1]:
            try:
                node = node[step]
            except (KeyError, IndexError, TypeError):
                node = None
        try:
            if value is ...:
                del node[path[-1]]
            else:
                node[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            pass
    return data


@examples(300, 20_000)
@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES | st.just(...)), min_size=1, max_size=3))
def test_any_result(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "result.json"
    try:
        path.write_text(json.dumps(changed(changes)))
    except ValueError:  # a lone surrogate
        return
    try:
        result = Result.read(path)
    except DataError as error:
        assert "result.json" in str(error)
        return
    out = console(io.StringIO())
    out.print(table([result]))
    out.print(details(result))
    verdict([result, result])
    rows = record.metrics(record.without_credentials(result))
    assert all(isinstance(value, int | float) for _, value, _, _ in rows)
    assert all(isinstance(text, str) for text in record.tags(result).values())
    assert all(isinstance(text, str) for text in record.flatten(result.config).values())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("key", ["config", "provenance", "conditions"])
def test_a_number_that_json_has_not(tmp_path, number, key):
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, key: {"a": {"b": "here"}}}).replace('"here"', number))
    with pytest.raises(DataError, match=r"result\.json.* is no finite number"):
        Result.read(tmp_path)


@examples(200, 5_000)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_anything_for_a_result(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "result.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"result\.json"):
        Result.read(path)


STATE = {"parameters/0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "updates/0": np.asarray(7)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.npz"
    save(path, STATE, Progress("lenet", 3, 66, 1.5, {"lr": 0.01}))
    return path.read_bytes()


def loaded_or_refused(path):
    try:
        state, progress = load(path)
    except DataError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return
    assert isinstance(progress.model, str)
    assert isinstance(progress.epoch, int) and isinstance(progress.steps, int)
    assert all(isinstance(value, int | float) for value in progress.schedule.values())
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())


@examples(300, 10_000)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6), keep=st.integers(0, 10**6))
def test_any_damage_to_a_checkpoint(tmp_path_factory, whole, edits, keep):
    data = bytearray(whole[: keep % len(whole)] if keep % 3 == 0 else whole)
    for place, value in edits:
        if data:
            data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "checkpoint.npz"
    path.write_bytes(data)
    loaded_or_refused(path)


FIELDS = ["format", "model", "epoch", "steps", "seconds", "schedule"]
METAS = st.one_of(
    VALUES.map(lambda value: json.dumps(value, default=str).encode()),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=7).map(
        lambda node: json.dumps(
            {"format": 1, "model": "m", "epoch": 1, "steps": 2, "seconds": 1.0, "schedule": {}, **node}, default=str
        ).encode(errors="replace")
    ),
    st.binary(max_size=20),
)
HEADERS = st.builds(
    "{{'descr': {!r}, 'fortran_order': False, 'shape': {}, }}".format,
    st.sampled_from(["<f4", "|O", "<U9999999999", "<f16", "x", "|V5", "<M8[ns]", "|b1"]),
    st.sampled_from(["(3,)", "(10**12,)", f"({10**12},)", "(-1,)", "()", f"({2**62}, {2**62})", "'a'", "(1.5,)"]),
)


@examples(200, 5_000)
@given(meta=METAS, header=HEADERS, name=st.sampled_from(["parameters/w", "../../../tmp/x", "/etc/x", "", META]))
def test_any_archive_for_a_checkpoint(tmp_path_factory, meta, header, name):
    path = tmp_path_factory.getbasetemp() / "checkpoint.npz"
    head = header.encode() + b" " * 20 + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        array = io.BytesIO()
        np.save(array, np.frombuffer(meta, np.uint8))
        archive.writestr(f"{META}.npy", array.getvalue())
        if name != META:
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(12))
    loaded_or_refused(path)
