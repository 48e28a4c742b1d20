"""From names to results: real files, and a real SQLite store written by the tracker."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from results import repeats, run

from energybench.errors import ConfigError, DataError, TrackingError
from energybench.run.result import Result
from energybench.study.collect import collect
from energybench.study.decision import Question, decide
from energybench.study.rows import rows


def written(folder: Path, results: list[Result]) -> Path:
    """A folder as a sweep leaves it: one folder a run."""
    for index, result in enumerate(results):
        place = folder / str(index)
        place.mkdir(parents=True, exist_ok=True)
        result.write(place)
    return folder


class TestFiles:
    def test_a_file_a_run_s_folder_and_a_folder_of_folders(self, tmp_path):
        found = repeats(64, (0.1, 0.2, 0.3))
        written(tmp_path / "runs" / "today", found)
        assert collect([str(tmp_path / "runs")]).results == tuple(found)
        assert collect([str(tmp_path / "runs" / "today" / "1")]).results == (found[1],)
        assert collect([str(tmp_path / "runs" / "today" / "1" / "result.json")]).results == (found[1],)

    def test_the_same_run_twice_is_one(self, tmp_path):
        [one] = repeats(64, (0.1,))
        written(tmp_path / "a", [one])
        written(tmp_path / "b", [replace(one, status="interrupted")])
        assert collect([str(tmp_path), str(tmp_path / "a")]).results == (one,)
        assert collect([str(tmp_path / "b"), str(tmp_path / "a")]).results == (one,)

    def test_copies_in_mlflow_s_folders_are_passed_over(self, tmp_path):
        [one] = repeats(64, (0.1,))
        written(tmp_path, [one])
        written(tmp_path / "mlartifacts", [replace(one, run_id="copy")])
        assert collect([str(tmp_path)]).results == (one,)

    def test_an_attempt_that_failed_counts_only_where_none_finished(self, tmp_path):
        failed, second = run(64, status="failed", sweep_id="s"), run(64, sweep_id="s")
        other, elsewhere = run(128, status="failed", sweep_id="s"), run(64, status="failed", sweep_id="t")
        written(tmp_path, [failed, second, other, elsewhere])
        assert collect([str(tmp_path)]).results == (second, other, elsewhere)

    def test_a_damaged_file_among_others_is_said_and_left_out(self, tmp_path):
        [one] = repeats(64, (0.1,))
        written(tmp_path, [one])
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "result.json").write_text("{")
        found = collect([str(tmp_path)])
        assert found.results == (one,)
        assert str(tmp_path / "1" / "result.json") in found.problems[0]

    def test_a_damaged_file_that_was_named_is_an_error(self, tmp_path):
        (tmp_path / "result.json").write_text("{")
        with pytest.raises(DataError, match=r"result\.json"):
            collect([str(tmp_path / "result.json")])

    def test_a_folder_without_results_is_an_error(self, tmp_path):
        with pytest.raises(ConfigError, match=r"no result\.json"):
            collect([str(tmp_path)])

    def test_neither_a_path_nor_a_store_is_one_line_and_makes_no_store(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(ConfigError, match="no such file or folder; and there is no tracking store at") as caught:
            collect(["yesterday"])
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store with a sweep of three runs, a run without a sweep, and a second experiment; (uri, results by name)."""
    pytest.importorskip("mlflow.store.db.utils", reason="needs MLflow with its SQL store")
    from energybench.tracking import MlflowTracker

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracker, other = MlflowTracker(uri, "main"), MlflowTracker(uri, "other")
    sweep = {"sweep_id": uuid.uuid4().hex, "sweep_name": "lenet batch=64,128"}
    swept = [run(64, 0, **sweep), run(64, 1, image_j=0.11, **sweep), run(128, 0, status="failed", **sweep)]
    results = {"swept": swept, "alone": [run(256, image_j=0.2)], "elsewhere": [run(512)]}
    for name, found in results.items():
        written(folder / name, found)
        for index, result in enumerate(found):
            (other if name == "elsewhere" else tracker).deliver(result, folder / name / str(index))
    return uri, results


def ids(results):
    return {result.run_id for result in results}


@pytest.mark.mlflow
class TestStore:
    def test_an_experiment(self, recorded):
        uri, known = recorded
        assert ids(collect(["main"], uri=uri).results) == ids([*known["swept"], *known["alone"]])
        assert ids(collect(["other", "main"], uri=uri).results) == {
            found.run_id for part in known.values() for found in part
        }

    @pytest.mark.parametrize("by", ["sweep_id", "sweep_name"])
    def test_a_sweep_by_id_and_by_name(self, recorded, by):
        uri, known = recorded
        assert ids(collect([getattr(known["swept"][0], by)], uri=uri).results) == ids(known["swept"])

    def test_a_run_by_its_own_id_and_by_mlflow_s(self, recorded):
        uri, known = recorded
        [one] = collect([known["alone"][0].run_id], uri=uri).results
        [same] = collect([one.tracking["run_id"]], uri=uri).results
        assert one == same
        assert one.run_id == known["alone"][0].run_id

    def test_what_is_read_back_says_the_same_as_the_files(self, recorded):
        uri, known = recorded
        back = {result.run_id: result for result in collect(["main"], uri=uri).results}
        for result in [*known["swept"], *known["alone"]]:
            read = back[result.run_id]
            assert read.metrics == result.metrics
            assert (read.config, read.overrides, read.status) == (result.config, result.overrides, result.status)
            assert (read.sweep_id, read.sweep_name) == (result.sweep_id, result.sweep_name)
            assert read.failure == result.failure
            assert {key: read.tags[key] for key in result.tags} == result.tags
            assert [rows([found])[0].boards for found in (read, result)] == [frozenset({("server", "GPU-1")})] * 2
        finished = [result for result in known["swept"] if result.status == "finished"]
        asked = Question(per="epoch")
        [from_files], [from_store] = decide(finished, asked), decide([back[r.run_id] for r in finished], asked)
        assert from_files.chosen.estimates == from_store.chosen.estimates

    def test_the_database_and_the_client_tell_the_same(self, recorded):
        from energybench.tracking.recorded import DatabaseRuns, ServerRuns

        uri, known = recorded
        database, server = DatabaseRuns(uri), ServerRuns(uri)
        assert database.experiments() == server.experiments()
        experiment = database.experiments()["main"]
        assert sorted(map(repr, map(plain, database.of_experiment(experiment)))) == sorted(
            map(repr, map(plain, server.of_experiment(experiment)))
        )
        sweep = known["swept"][0].sweep_id
        [parent], [same] = database.tagged("energybench.sweep_id", sweep), server.tagged("energybench.sweep_id", sweep)
        assert plain(parent) == plain(same) == plain(database.one(parent.run_id)) == plain(server.one(parent.run_id))
        assert database.one("0" * 32) is server.one("0" * 32) is None

    def test_a_run_whose_cell_was_run_again_is_none(self, recorded):
        import mlflow

        uri, known = recorded
        client = mlflow.MlflowClient(tracking_uri=uri)
        [alone] = collect([known["elsewhere"][0].run_id], uri=uri).results
        client.set_tag(alone.tracking["run_id"], "energybench.superseded", "true")
        try:
            with pytest.raises(ConfigError, match="no run, sweep or experiment"):
                collect(["other"], uri=uri)
        finally:
            client.delete_tag(alone.tracking["run_id"], "energybench.superseded")

    def test_a_name_of_two_sweeps_is_refused_with_their_ids(self, recorded):
        from energybench.tracking import MlflowTracker

        uri, _ = recorded
        tracker = MlflowTracker(uri, "twice")
        parents = [tracker.begin_sweep(uuid.uuid4().hex, "same name") for _ in range(2)]
        with pytest.raises(TrackingError, match="2 sweeps are called 'same name'") as caught:
            collect(["same name"], uri=uri)
        assert all(parent in str(caught.value) for parent in parents)

    def test_what_is_nowhere_is_one_line_with_the_experiments(self, recorded):
        uri, _ = recorded
        with pytest.raises(ConfigError, match=r"no such file or folder, and no run.*experiments there: .*main"):
            collect(["nothing's"], uri=uri)

    def test_a_file_that_is_no_store(self, tmp_path):
        (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at")
        with pytest.raises(ConfigError, match="cannot open the store"):
            collect(["main"], uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def plain(run):
    """A recorded run without its order of keys."""
    return (
        run.run_id,
        run.status,
        run.start_ms,
        run.end_ms,
        *(sorted(d.items()) for d in (run.params, run.metrics, run.tags)),
    )
