"""`recommend` and `compare` as a user runs them, on folders of result.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from results import repeats, run
from test_collect import written

from energybench.cli import main

ENERGIES = {64: (0.100, 0.101, 0.099), 128: (0.070, 0.0705, 0.0695), 256: (0.0702, 0.0698, 0.0706)}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Three batches, three runs of each, in ./runs; the last two take the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    accuracies = {64: 0.981, 128: 0.979, 256: 0.960}
    written(
        tmp_path / "runs",
        [
            run(
                batch,
                seed,
                image_j=energy,
                image_s=energy / 50 * (1 + seed / 500),
                accuracy=accuracies[batch] + seed / 1000,
            )
            for batch, energies in ENERGIES.items()
            for seed, energy in enumerate(energies)
        ],
    )
    return tmp_path


def said(capsys, *argv):
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


class TestRecommend:
    def test_the_answer_in_plain_words(self, study, capsys):
        code, out, err = said(
            capsys, "recommend", "--min-accuracy", "97%", "--baseline", "batch=64", "--max-slowdown", "10%"
        )
        assert (code, err) == (0, "")
        assert "Train with batch=128: the least energy an image of 2 settings that meet what you ask." not in out
        assert "Train with batch=128: the least energy an image of the only setting that meets what you ask." in out
        assert "Against your present setting (batch=64): 30 % less energy (" in out
        assert "30 % less time (" in out
        assert "accura" in out
        assert "no other setting to compare it with" in out

    def test_a_tie_says_what_to_repeat(self, study, capsys):
        code, out, _ = said(capsys, "recommend")
        assert code == 0
        assert "How sure: it is the best with a probability of" in out
        assert "not told apart from 1 other" in out
        [line] = [line for line in out.splitlines() if line.startswith("  batch=256: ")]
        assert "energy, not told apart (-" in line
        assert "  energybench batch=128 seed=3," in out or "take either" in line

    def test_what_to_repeat_is_told_without_what_decides_nothing(self, study, capsys):
        beside = ("tracking.uri=foo://bar", "sweep.name=live", "hydra/launcher=joblib", "rerun=all", "seed=0")
        one = run(64, 0, overrides=("experiment=demo", *beside, "budget.epochs=1"))
        written(study / "one", [one, run(128, 0, image_j=0.11)])
        _, out, _ = said(capsys, "recommend", "one")
        assert "  energybench experiment=demo budget.epochs=1 seed=1,2 -m" in out.splitlines()

    def test_without_a_target_it_says_that_there_was_none(self, study, capsys):
        code, out, _ = said(capsys, "recommend", "--per", "target-accuracy")
        assert code == 0
        assert out.splitlines()[:2] == [
            "data set digits; no setting has what is asked for",
            "No setting can be recommended: no run had budget.target_accuracy set.",
        ]
        config = {"budget": {"target_accuracy": 0.999}}
        written(study / "aimed", repeats(64, (0.01, 0.011), config=config))
        _, out, _ = said(capsys, "recommend", "aimed", "--per", "target-accuracy")
        assert "No setting can be recommended: no run reached the target accuracy." in out

    def test_a_constraint_that_is_met_only_perhaps(self, study, capsys):
        _, out, _ = said(capsys, "recommend", "--min-accuracy", "97.95%")
        assert "Not surely what you ask: its top-1 accuracy 98.00 ± 0.25 % may be below 97.95%." in out

    def test_flags_of_the_chosen_setting_are_told(self, study, capsys):
        written(study / "flagged", repeats(64, (0.01, 0.011), tags={"quality": "gaps"}))
        _, out, _ = said(capsys, "recommend", "flagged")
        assert "Something speaks against its numbers: gaps" in out

    def test_costs_are_the_user_s_and_only_if_given(self, study, capsys):
        _, plain, _ = said(capsys, "recommend")
        assert "kWh" not in plain
        rates = ("--price-per-kwh", "0.30", "--currency", "EUR", "--pue", "1.4", "--carbon-g-per-kwh", "380")
        _, out, _ = said(capsys, "recommend", *rates)
        kwh = 0.07e6 * 1.4 / 3.6e6
        assert f"A million images: {kwh:.4g} kWh, {kwh * 0.3:.4g} EUR, {kwh * 0.38:.4g} kg CO2e" in out

    def test_constraints_that_nothing_meets(self, study, capsys):
        code, out, _ = said(capsys, "recommend", "--min-accuracy", "0.99")
        assert code == 0
        assert "No setting meets what you ask: top-1 accuracy of at least 0.99." in out
        assert "The nearest is batch=64: top-1 accuracy 98.20% is below 99.00%." in out

    def test_json_is_complete(self, study, capsys):
        code, out, _ = said(capsys, "recommend", "--json", "--baseline", "batch=64", "--criterion", "edp", "--pue", "2")
        [found] = json.loads(out)
        assert code == 0
        assert found["question"] == {"per": "image", "criterion": "edp", "baseline": "batch=64"}
        assert found["chosen"] in ("batch=128", "batch=256")
        assert {setting["setting"] for setting in found["settings"]} == {"batch=64", "batch=128", "batch=256"}
        assert sum(setting["probability"] for setting in found["settings"]) == pytest.approx(1.0)
        assert all(len(setting["runs"]) == 3 for setting in found["settings"])
        assert found["settings"][0]["cost"].keys() == {"kwh"}
        assert found["against"]["ratios"]["energy"]["value"] == pytest.approx(0.7, rel=0.01)

    def test_estimated_energy_says_what_it_is_worth(self, study, capsys):
        written(study / "tdp", repeats(64, (1.0, 1.1), tags={"energy_source": "estimated", "meter": "tdp"}))
        _, out, _ = said(capsys, "recommend", "tdp")
        assert "Estimated energy is a constant power times the time" in out

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["nowhere"], "nowhere: no such file or folder"),
            (["--per", "mile"], "one of image, epoch, run, target-accuracy"),
            (["--criterion", "beauty"], "one of energy, time, edp, ed2p"),
            (["--per", "mile"], "--per mile: "),
            (["--criterion", "speed"], "--criterion speed: "),
            (["--min-accuracy", "150%"], "--min-accuracy 150%: write no more than 100%"),
            (["--min-accuracy", "97"], "write a percentage such as 10%"),
            (["--min-accuracy", "-1%"], "expected one argument"),
            (["--max-slowdown", "some"], "write a percentage"),
            (["--max-energy", "5 miles"], "kWh"),
            (["--price-per-kwh", "free"], "write a number"),
            (["--pue", "0.5"], "at least what its computers take"),
            (["--currency", "EUR"], "give a price too"),
            (["--baseline", "batch=7"], "no setting of it; the nearest: batch="),
        ],
    )
    def test_wrong_usage_is_exit_2_and_words(self, study, capsys, argv, words):
        try:
            code = main(["recommend", *argv])
        except SystemExit as end:
            code = end.code
        err = capsys.readouterr().err
        assert code == 2
        assert words in err
        assert "Traceback" not in err


class TestCompare:
    @pytest.fixture
    def two(self, study):
        for name, factor in (("old", 1.0), ("new", 1.06)):
            written(study / name, repeats(64, [energy * factor for energy in ENERGIES[64]]))
        return study

    def test_side_by_side(self, two, capsys):
        code, out, err = said(capsys, "compare", "old", "new")
        assert (code, err) == (0, "")
        assert "old" in out
        assert "+6" in out
        assert "* told apart" in out

    @pytest.mark.parametrize(
        ("conditions", "code"),
        [
            (["energy_per_image_j +5%"], 3),
            (["energy_per_image_j +10%"], 0),
            (["energy_per_image_j +10%", "energy_j +1%"], 3),
            (["energy_per_image_j more"], 2),
            (["no_such_metric +5%"], 2),
        ],
    )
    def test_exit_codes(self, two, capsys, conditions, code):
        argv = [word for condition in conditions for word in ("--fail-if", condition)]
        found, out, err = said(capsys, "compare", "old", "new", *argv)
        assert found == code
        assert len(err.splitlines()) == (code == 2)
        assert ("FAIL: " in out) == (code == 3)

    def test_sure(self, two, capsys):
        written(two / "once", repeats(64, (0.2,)))
        assert said(capsys, "compare", "old", "once", "--fail-if", "energy_j +5%")[0] == 3
        code, out, _ = said(capsys, "compare", "old", "once", "--fail-if", "energy_j +5%", "--sure")
        assert code == 0
        assert "not surely" in out
        assert said(capsys, "compare", "old", "new", "--fail-if", "energy_j +1%", "--sure")[0] == 3

    def test_nothing_in_common_cannot_be_judged(self, two, capsys):
        written(two / "other", [*repeats(1, (0.1,)), *repeats(2, (0.1,))])
        code, out, err = said(capsys, "compare", "runs", "other", "--fail-if", "energy_j +5%")
        assert code == 2
        assert "No setting of runs matches one of other." in out
        assert "cannot be judged" in err

    @pytest.mark.parametrize(
        "name, meant",
        [("enrgy_j", "; did you mean energy_j?"), ("ed2p_js", "; did you mean ed2p_js2?"), ("validate.energy_j", "")],
    )
    def test_a_metric_that_no_run_has(self, two, capsys, name, meant):
        code, _, err = said(capsys, "compare", "old", "new", "--fail-if", f"{name} +5%")
        assert code == 2
        assert f"cannot be judged: {name} +5%: the first has no {name}{meant}\n" in err

    def test_markdown_and_json(self, two, capsys):
        _, out, _ = said(capsys, "compare", "old", "new", "--markdown", "--fail-if", "energy_j +50%")
        assert "|  | old | new | change |" in out.replace("|   |", "|  |")
        assert "- ok: energy_j +50%" in out
        code, out, _ = said(capsys, "compare", "old", "new", "runs", "--json", "--fail-if", "energy_j +5%")
        found = json.loads(out)
        assert code == 3
        assert found["failed"] is True
        assert [comparison["other"] for comparison in found["comparisons"]] == ["new", "runs"]
        change = found["comparisons"][0]["pairs"][0]["changes"]["energy_j"]
        assert change["ratio"]["value"] == pytest.approx(1.06, rel=1e-3)
        assert change["told_apart"] is True

    @pytest.mark.parametrize("argv", [[], ["old"], ["old", "nowhere"]])
    def test_wrong_usage_is_exit_2_and_one_line(self, two, capsys, argv):
        code, _, err = said(capsys, "compare", *argv)
        assert code == 2
        assert len(err.splitlines()) == 1


def test_files_are_compared_without_mlflow_and_arrays(study):
    """What a continuous integration waits for."""
    script = (
        "import json, sys; from energybench.cli import main; main(sys.argv[1:]); print(json.dumps(sorted(sys.modules)))"
    )
    argv = ["compare", "runs/0", "runs/3", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *argv],
        cwd=study,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    assert [
        name for name in ("mlflow", "sqlalchemy", "scipy", "numpy", "pandas", "matplotlib") if name in modules
    ] == []
