"""TUM-GAID and a user's own videos, in every layout, from files to samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV (pip install 'energybench[images]')")
from walks import FRAMES, SAMPLES, as_images, as_video, frames_of

from energybench.cli import main
from energybench.dataset import DatasetInfo
from energybench.errors import ConfigError, DataError
from energybench.prepared import Prepared
from energybench_plugins.datasets.tum_gaid import TumGaid, TumGaidOptions
from energybench_plugins.datasets.walking_videos import WalkingVideos, WalkingVideosOptions
from energybench_plugins.gait.walks_dataset import SHAPE

WALKS = {("p003", "n01"): 0, ("p003", "n05"): 0, ("p003", "b01"): 0, ("p010", "n01"): 1, ("p010", "s02"): 1}
QUICK = {"flow": "dis_ultrafast"}


def lists(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tumgaidtestids.lst").write_text("3\n10\n12\n")
    (folder / "tumgaidtrainids.lst").write_text("1\n2\n")
    (folder / "tumgaidvalids.lst").write_text("5\n")


@pytest.fixture(scope="module")
def tum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TUM-GAID as it is given out, of three persons; the third walks too briefly, and one folder shows nobody."""
    root = tmp_path_factory.mktemp("TUMGAIDimage")
    for (person, walk), label in WALKS.items():
        as_images(root / "image" / person / walk, frames_of(label, walk))
    as_images(root / "image" / "p012" / "n01", list(frames_of(2))[:20])
    as_images(root / "image" / "p012" / "back", list(frames_of(2))[:3])
    as_images(root / "image" / "p001" / "n01", list(frames_of(3))[:3])
    lists(root / "labels")
    return root


@pytest.fixture(scope="module")
def prepared(tum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    given = [f"dataset.path={tum}", f"dataset.prepared={folder}", "dataset.flow=dis_ultrafast"]
    assert main(["prepare", "dataset=tum_gaid", *given, "--workers", "2"]) == 0
    return folder


def test_the_test_persons_are_told_apart_by_gallery_and_probes(tum: Path, prepared: Path) -> None:
    plugin = TumGaid(TumGaidOptions(path=str(tum), prepared=str(prepared), **QUICK))
    assert plugin.check().ok, plugin.check()
    assert plugin.info() == DatasetInfo(3, True, 2 * SAMPLES, 3 * SAMPLES)
    manifest = Prepared(prepared).manifest
    assert manifest.about["people"] == ["p003", "p010", "p012"]
    [left_out] = Prepared(prepared).skipped("train")
    assert left_out.name == "p012-n01"
    assert "a sample takes 26 in a row" in left_out.reason
    data = plugin.open(SHAPE, 0)
    [batch] = data.batches("validation", 64, 0)
    assert batch.labels.tolist() == [0] * 2 * SAMPLES + [1] * SAMPLES
    walks, labels = data.sequences("validation")
    assert (walks.tolist(), labels.tolist()) == (np.repeat([0, 1, 2], SAMPLES).tolist(), [0, 0, 1])


def test_a_sample_has_the_walker_in_its_middle_who_moves_to_the_right(tum: Path, prepared: Path) -> None:
    data = TumGaid(TumGaidOptions(path=str(tum), prepared=str(prepared), mirror=False, **QUICK)).open(SHAPE, 0)
    [batch] = data.batches("validation", 64, 0)
    for image in batch.images:
        x = image[24]  # of the middle frame
        assert np.abs(x).sum(axis=0).argmax() in range(24, 37)
        assert (x > 0.5).sum() > 5 * (x < -0.5).sum()


def test_it_is_prepared_once_and_checked(tum: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"dataset.path={tum}", f"dataset.prepared={prepared}", "dataset.flow=dis_ultrafast"]
    assert main(["prepare", "dataset=tum_gaid", *given]) == 0
    assert "were there" in capsys.readouterr().out
    assert main(["prepare", "dataset=tum_gaid", *given, "--verify"]) == 0
    assert "as they were written" in capsys.readouterr().out


def test_other_options_than_it_was_prepared_with_are_refused(tum: Path, prepared: Path) -> None:
    for changed, key in (
        ({"finder": "hog"}, "finder"),
        ({"persons": "train"}, "persons"),
        ({"probes": ["n05"]}, "probes"),
    ):
        plugin = TumGaid(TumGaidOptions(path=str(tum), prepared=str(prepared), **{**QUICK, **changed}))
        with pytest.raises(DataError, match=f"prepared with another dataset.{key}"):
            plugin.info()


def test_videos_are_taken_in_both_layouts_and_show_the_same(tum: Path, prepared: Path, tmp_path: Path) -> None:
    as_video(tmp_path / "videos" / "p003-n01.avi", frames_of(0, "n01"))
    as_video(tmp_path / "videos" / "p010" / "n01.avi", frames_of(1, "n01"))
    lists(tmp_path)
    plugin = TumGaid(TumGaidOptions(path=str(tmp_path), **QUICK))
    plan = plugin.preparation()
    assert plan.about["people"] == ["p003", "p010"]
    assert plan.folder == tmp_path / "prepared"
    assert main(["prepare", "dataset=tum_gaid", f"dataset.path={tmp_path}", "dataset.flow=dis_ultrafast"]) == 0
    assert plugin.info() == DatasetInfo(2, True, 2 * SAMPLES, 0)
    from_images, from_video = Prepared(prepared).open("train"), Prepared(plan.folder).open("train")
    count = FRAMES - 1
    kept = [np.stack([split[index] for index in range(2 * count)]).astype(int) for split in (from_images, from_video)]
    assert np.abs(kept[0] - kept[1]).mean() < 1.0  # JPEG files of two kinds


def test_persons_of_training_have_walks_of_their_own(tmp_path: Path) -> None:
    for person, walk in (("p001", "n01"), ("p001", "b01"), ("p005", "n01"), ("p001", "n06"), ("p003", "n01")):
        as_images(tmp_path / person / walk, list(frames_of(0))[:2])
    lists(tmp_path)
    plan = TumGaid(TumGaidOptions(path=str(tmp_path), persons="train")).preparation()
    assert plan.about["people"] == ["p001", "p005"]
    named = {job.split: [walk.name for walk in job.walks] for job in plan.jobs}
    assert named == {"train": ["p001-n01", "p001-b01", "p005-n01"], "validation": ["p001-n06"]}


def test_a_changed_video_is_noticed(tum: Path) -> None:
    plugin = TumGaid(TumGaidOptions(path=str(tum), **QUICK))
    before = plugin.preparation().made_of
    assert json.dumps(before) == json.dumps(plugin.preparation().made_of)
    image = tum / "image" / "p003" / "n01" / "001.jpg"
    kept = image.read_bytes()
    image.write_bytes(kept + b"\0")
    try:
        assert plugin.preparation().made_of["videos"] != before["videos"]
    finally:
        image.write_bytes(kept)


def test_a_folder_a_person_is_enough_and_a_broken_walk_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, who in enumerate(("anna", "bela")):
        as_video(tmp_path / who / "monday.avi", frames_of(label))
        as_images(tmp_path / who / "tuesday", frames_of(label, place=1))
    as_images(tmp_path / "bela" / "sunday", list(frames_of(1))[:3])
    (tmp_path / "bela" / "sunday" / "002.jpg").write_bytes(b"no image")
    (tmp_path / "notes").mkdir()
    given = [f"dataset.path={tmp_path}", "dataset.flow=dis_ultrafast"]
    assert main(["prepare", "dataset=walking_videos", *given]) == 0
    said = capsys.readouterr().out
    assert "left out: bela/sunday" in said and "002.jpg: not an image that can be read" in said
    plugin = WalkingVideos(WalkingVideosOptions(path=str(tmp_path), **QUICK))
    assert plugin.info() == DatasetInfo(2, True, 2 * SAMPLES, 2 * SAMPLES)
    [batch] = plugin.open(SHAPE, 0).batches("validation", 64, 0)
    assert batch.labels.tolist() == [0] * SAMPLES + [1] * SAMPLES
    assert batch.images[:, 24].sum() < 0  # both walk to the left


def test_what_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    for plugin, words in (
        (TumGaid(TumGaidOptions()), "set dataset.path"),
        (TumGaid(TumGaidOptions(path=str(tmp_path / "none"))), "no such folder"),
        (TumGaid(TumGaidOptions(path=str(tmp_path))), "tumgaidtestids.lst is not in .*set dataset.lists"),
        (WalkingVideos(WalkingVideosOptions(path=str(tmp_path))), "walks of 0 people; give a folder with one folder"),
    ):
        with pytest.raises(DataError, match=words):
            plugin.preparation()
    state = TumGaid(TumGaidOptions(path=str(tmp_path))).check()
    assert not state.ok and "energybench prepare dataset=tum_gaid" in str(state)
    lists(tmp_path)
    with pytest.raises(DataError, match="no walk of its 3 persons"):
        TumGaid(TumGaidOptions(path=str(tmp_path))).preparation()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"persons": "all"}, "give one of train, test"),
        ({"gallery": ["x01"]}, "'x01' is no walk"),
        ({"probes": ["n01"]}, "n01 would be trained on too"),
        ({"gallery": []}, "give the walks to train on"),
        ({"finder": "eye"}, "give one of background, hog"),
    ],
)
def test_options_that_make_no_split_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TumGaidOptions(**options)
