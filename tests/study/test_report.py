"""The report of made-up studies: what it says, what it refuses to say, and that the page needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest
from studies import run, study, write_run

from energybench.cli import main
from energybench.study.collect import Collected, collect
from energybench.study.report import page_of_sweep, write_report
from energybench.study.report.contents import contents
from energybench.study.report.figures import Line, Panel, Point, against_batch, front
from energybench.study.report.page import render


def collected(results, **fields):
    return Collected(tuple(results), **fields)


def of_lenet(**changes):
    return study(networks=("lenet",), counts=(1,), generations=("pascal",), **changes)


@pytest.fixture(scope="module")
def whole():
    """Four networks, three batches, two generations, one and two cards, three repeats: the study."""
    results = study()
    results[5] = run("caffenet", "maxwell", 1, 128, 2, start_s=300, quality="few_updates,throttled_thermal")
    results[8] = run("caffenet", "maxwell", 1, 256, 2, start_s=480, failure="batch 256 does not fit")
    return contents(collected(results))


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def column(table, name):
    index = [one.name for one in table.columns].index(name)
    return [row[index] for row in table.rows]


class TestContents:
    def test_facts(self, whole):
        facts = dict(whole.facts)
        assert facts["Runs"] == "143 finished, 1 failed; 48 settings"
        assert facts["When"].startswith("1 March 2026, 00:00 to 02:23 (UTC+01:00)")
        assert facts["Devices"] == "TITAN X (maxwell), TITAN Xp (pascal)"
        assert facts["Network"] == "caffenet, cnn2d, resnet, resnetim"

    def test_the_networks_are_said_to_be_a_reconstruction_and_the_data_to_be_synthetic(self, whole):
        notes = " ".join(whole.notes)
        assert "reconstruction" in notes
        assert "24 of 48 settings trained on synthetic data" in notes
        assert contents(collected(of_lenet())).notes == ()

    def test_one_table_a_network_with_speed_up_and_efficiency(self, whole):
        [group] = whole.groups
        assert [table.title for table in group.results] == ["caffenet", "cnn2d", "resnet", "resnetim"]
        table = group.results[0]
        assert len(table.rows) == 12
        one, two = column(table, "speedup")[0], column(table, "speedup")[3]
        assert (one.value, column(table, "count")[3].value) == (1.0, 2)
        faster = column(table, "time_s")[0].value / column(table, "time_s")[3].value
        assert two.value == pytest.approx(faster, rel=1e-3)
        assert column(table, "efficiency")[3].value == pytest.approx(two.value / 2)

    def test_accuracy_is_absent_on_synthetic_data(self, whole):
        [group] = whole.groups
        by_title = {table.title: {one.name for one in table.columns} for table in group.results}
        assert "accuracy_top1" in by_title["caffenet"]
        assert "accuracy_top1" not in by_title["cnn2d"]

    def test_a_recommendation_for_each_network(self, whole):
        [group] = whole.groups
        caffenet = group.advice[0]
        assert caffenet.network == "caffenet"
        assert caffenet.sentence.startswith("batch=256 gpu=pascal gpu.count=1 takes the least energy, ")
        assert "The fastest, batch=256 gpu=pascal gpu.count=2:" in caffenet.sentence
        answers = {finding.question: finding for finding in caffenet.findings}
        assert answers["Most images a second"].answer == "batch=256 gpu=pascal gpu.count=2"
        assert answers["Most images a second"].sure
        assert not answers["Highest top-1 accuracy"].sure
        assert "not told apart from" in answers["Highest top-1 accuracy"].detail

    def test_the_claims_are_answered_from_the_numbers(self, whole):
        [group] = whole.groups
        answers = {claim.statement.split()[0]: " ".join(claim.answers) for claim in group.claims}
        assert re.match(r"Over 48 settings, .* within networks with r = 0\.\d\d", answers["Energy"])
        assert answers["The"].startswith("pascal against maxwell, 24 matched settings: 48 % less energy an image")
        assert "27 % less energy an image" in answers["Larger"]
        assert "less accurate" in answers["Accuracy"]
        assert answers["Several"].startswith("2 devices against 1, 24 matched settings: 51 % more images a second")
        assert "less in 24 of 24" in answers["The"]
        assert texts(group.effects)[0][:5] == ["generation", "pascal", "maxwell", "energy an image", "24"]

    def test_flags_and_failures_are_counted_where_they_are(self, whole):
        assert [row[0] for row in texts(whole.flags)] == ["few_updates", "throttled_thermal"]
        assert texts(whole.flags)[0][2:] == ["1", "model=caffenet batch=128 gpu=maxwell gpu.count=1 (1)"]
        [failure] = texts(whole.failures)
        assert failure == [
            "model=caffenet batch=256 gpu=maxwell gpu.count=1", "2", "failed", "batch 256 does not fit",
        ]  # fmt: skip
        [group] = whole.groups
        row = next(row for row in texts(group.settings) if row[0] == failure[0])
        assert row[-2:] == ["2 of 3", "ok, failed: out_of_memory"]

    def test_who_read_what(self, whole):
        rows = texts(whole.channels)
        assert len(rows) == 4  # two cards of two generations
        assert rows[0][:3] == ["titan", "gpu.0", "TITAN X"]
        assert {"nvml", "usage", "100 ms", "100.00 %", "2.5 %"} <= set(rows[0])
        assert ["code", "commit 0123456789ab"] in texts(whole.software)

    def test_measured_and_estimated_stand_apart(self):
        estimated = [run("lenet", "pascal", 1, batch, seed, estimated=True) for batch in (64, 128) for seed in (0, 1)]
        found = contents(collected([*estimated, *of_lenet()]))
        assert [group.name for group in found.groups] == ["gpu-measured", "cpu-estimated"]
        measured, assumed = found.groups
        assert len(measured.results[0].rows) == 3
        assert len(assumed.results[0].rows) == 2
        assert "No sensor was read" in assumed.warning
        assert "145 W" in assumed.how
        names = [picture.name for picture in assumed.pictures]
        assert not any(name.startswith("energy-time") for name in names)
        assert all("energy" not in row[3] for row in texts(assumed.effects))
        assert "Not answered" in assumed.claims[0].answers[0]

    def test_advice_names_what_varies_in_its_network(self):
        other = [run("caffenet", "maxwell", count, 64, seed) for count in (1, 2) for seed in (0, 1)]
        [group] = contents(collected([*of_lenet(), *other])).groups
        answers = {one.network: {finding.answer for finding in one.findings} for one in group.advice}
        assert answers["lenet"] <= {"batch=64", "batch=128", "batch=256"}
        assert answers["caffenet"] <= {"gpu.count=1", "gpu.count=2"}
        assert all("gpu" in row[0] for row in texts(group.settings))

    def test_single_runs_are_not_ranked(self):
        found = contents(collected(of_lenet(seeds=(0,))))
        [advice] = found.groups[0].advice
        assert not any(finding.sure for finding in advice.findings)
        assert "others may be as good" in advice.sentence
        assert "repeat each 3 times" in advice.findings[0].detail

    def test_nothing_finished(self):
        found = contents(collected([run("lenet", "pascal", 1, 64, 0, failure="no memory")]))
        assert found.groups == ()
        assert "nothing to compare" in render(found)

    def test_runs_of_a_store_without_phases_or_channels(self):
        from dataclasses import replace

        bare = [replace(one, phases=(), provenance={"devices": one.provenance["devices"]}) for one in of_lenet()]
        found = contents(collected(bare))
        assert found.channels.rows == ()
        assert "does not hold what was read" in render(found)

    def test_a_big_study_is_cut_on_the_page_and_whole_in_the_files(self):
        batches = tuple(range(1, 451))
        found = contents(collected(of_lenet(batches=batches, seeds=(0,))))
        table = found.groups[0].settings
        assert (len(table.rows), len(table.shown)) == (450, 400)
        assert "400 of 450 rows" in render(found)

    def test_traces_of_a_few_runs(self, tmp_path):
        for number, result in enumerate(of_lenet(seeds=(0,))):
            write_run(result, tmp_path / str(number))
        (tmp_path / "1" / "power.parquet").write_bytes(b"damaged")
        found = contents(collect([str(tmp_path)]))
        assert found.traces.description.count("gpu.0 from") == 2


def test_the_front_is_what_no_other_beats_in_both():
    points = [Point(1, 1), Point(2, 3), Point(3, 2), Point(2, 2), Point(4, 3), Point(0.5, 0.5)]
    assert [(point.x, point.y) for point in front(points)] == [(0.5, 0.5), (1, 1), (2, 3)]


@pytest.mark.parametrize("percent", [True, False])
def test_no_axis_of_shares_goes_beyond_what_a_share_can_be(percent):
    points = (Point(64, 71.0, 50.0), Point(128, 97.0, 1.4))
    drawn = against_batch("name", "title", {"top-1 (%)": [Panel("lenet", (Line("", points),), percent=percent)]}, "")
    low, high = drawn.figure.axes[0].get_ylim()
    assert low <= 21.0
    assert (100 < high < 105) == percent
    assert percent or high > 121


class Page(HTMLParser):
    """What of a page would be fetched, and its elements."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.fetched, self.links, self.tags = Counter(), [], [], Counter()
        self.images = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags[tag] += 1
        if "id" in found:
            self.ids[found["id"]] += 1
        if tag == "a":
            self.links.append(found["href"])
        elif tag == "svg":
            self.images.append(found)
        else:
            self.fetched += [found[name] for name in ("src", "href", "xlink:href") if name in found]


class TestPage:
    @pytest.fixture(scope="class")
    def text(self, whole):
        return render(whole)

    def test_it_needs_no_other_file_and_no_network(self, text):
        page = Page(text)
        assert {link[0] for link in page.fetched} <= {"#", "d"}
        assert all(link.startswith(("#", "data:")) for link in page.fetched)
        assert "@import" not in text
        assert "url(http" not in text
        assert all(link.startswith("#") for link in page.links)

    def test_every_id_is_one_and_every_link_leads_somewhere(self, text):
        page = Page(text)
        assert [name for name, count in page.ids.items() if count > 1] == []
        targets = [link[1:] for link in (*page.links, *page.fetched) if link.startswith("#")]
        targets += re.findall(r"url\(#([^)]+)\)", text)
        assert [target for target in targets if target not in page.ids] == []

    def test_tables_are_tables_and_figures_have_words(self, text, whole):
        page = Page(text)
        assert page.tags["table"] == page.tags["caption"] == len(whole.tables)
        assert page.tags["h1"] == 1
        for image in page.images:
            assert image["role"] == "img"
            assert all(name in page.ids for name in image["aria-labelledby"].split())
        assert page.tags["title"] == 1 + len(page.images)

    def test_figures_follow_the_colours_of_the_page(self, text):
        assert "fill: var(--ink, #1d232b)" in text
        assert "prefers-color-scheme: dark" in text
        drawn = text[text.index("<svg") : text.rindex("</svg>")]
        assert "#1d232b" not in drawn.replace("var(--ink, #1d232b)", "")

    def test_what_a_user_wrote_is_text(self):
        from dataclasses import replace

        results = [replace(one, sweep_name="<script>alert(1)</script>") for one in of_lenet(seeds=(0,))]
        text = render(contents(collected(results)))
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text

    def test_what_could_not_be_read_is_said(self):
        text = render(contents(collected(of_lenet(seeds=(0,)), problems=("runs/7/result.json: not a result",))))
        assert "Left out: runs/7/result.json: not a result" in text


class TestFiles:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("study")
        for number, result in enumerate(of_lenet(seeds=(0, 1), batches=(64, 128))):
            write_run(result, folder / "runs" / str(number))
        return folder

    def test_tables_in_three_formats_and_figures_in_two(self, folder, capsys):
        assert main(["report", str(folder / "runs"), "--out", str(folder / "out"), "--title", "My study"]) == 0
        out = folder / "out"
        assert capsys.readouterr().out.strip() == str(out / "report.html")
        assert "<h1>My study</h1>" in (out / "report.html").read_text()
        tables = {path.name for path in (out / "tables").iterdir()}
        assert {f"results-gpu-measured-lenet.{ending}" for ending in ("csv", "md", "tex")} <= tables
        figures = {path.name for path in (out / "figures").iterdir()}
        assert {"power-traces.svg", "power-traces.png", "against-batch-gpu-measured.svg"} <= figures
        for path in (out / "figures").glob("*.png"):
            assert path.read_bytes().startswith(b"\x89PNG")
        for path in (out / "figures").glob("*.svg"):
            assert "<text" not in path.read_text(), "a file's text is outlines: it looks the same everywhere"

    def test_the_same_results_make_the_same_bytes(self, folder, tmp_path):
        for name in ("one", "two"):
            write_report(collect([str(folder / "runs")]), tmp_path / name)
        files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
        assert len(files) > 20
        for file in files:
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file

    def test_a_sweep_s_page_is_one_file(self, folder, tmp_path):
        page = page_of_sweep(collect([str(folder / "runs")]), tmp_path)
        assert list(tmp_path.iterdir()) == [page]

    def test_no_runs_no_page(self, tmp_path):
        assert page_of_sweep(collected([]), tmp_path) is None
        assert list(tmp_path.iterdir()) == []

    def test_no_folder_to_write_into(self, folder, capsys):
        assert main(["report", str(folder / "runs"), "--out", "/dev/null/x"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line == "energybench: /dev/null/x: no folder to write into (Not a directory); choose another"

    def test_no_folder_of_runs(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(["report"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "runs: no such file or folder" in line

    @pytest.mark.parametrize("absent", ["jinja2", "matplotlib"])
    def test_what_is_not_installed_is_named_in_one_line(self, absent, folder, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, absent, None)
        assert main(["report", str(folder / "runs"), "--out", str(tmp_path / "out")]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"{absent} not installed" in line
        assert "energybench[report]" in line
        assert page_of_sweep(collect([str(folder / "runs")]), tmp_path) is None
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("energybench: no report: ")
        assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_pyplot_alone(tmp_path):
    write_run(of_lenet(seeds=(0,))[0], tmp_path / "runs")
    code = (
        "import sys; from pathlib import Path\n"
        "from energybench.study.collect import collect\n"
        "from energybench.study.report import write_report\n"
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules\n"
        "write_report(collect([sys.argv[1]]), Path(sys.argv[2]))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs"), str(tmp_path / "out")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
