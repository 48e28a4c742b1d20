"""`dataset=imagenet`: what is found where, which views are taken, and what becomes of files that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes.prepare import prepared
from omegaconf import OmegaConf
from views import Silent

from energybench.cli import main
from energybench.config import resolve
from energybench.dataset import Adapting, Batch, Consumer, Dataset, Holding, Reporting
from energybench.errors import ConfigError, DataError
from energybench.images import EncodedBatch, HeldBatch, PixelBatch
from energybench.prepared import Preparable, Prepared
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine
from energybench.run.preflight import prepare as plan_of
from energybench_plugins.datasets import jpeg
from energybench_plugins.datasets.imagenet import MEAN, STD, Imagenet, ImagenetOptions
from energybench_plugins.datasets.views import CentreCrop, RandomCrop

SHAPE = (3, 32, 48)
CLASSES = ("n01", "n02", "n03")
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))


def write(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (60, 90)) -> None:
    """One colour, so that every view of an image has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), colour[::-1], np.uint8)
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training images and two validation images of each of three classes, of two sizes."""
    root = tmp_path_factory.mktemp("imagenet")
    for name, colour in zip(CLASSES, COLOURS, strict=True):
        for number in range(8):
            write(root / "train" / name / f"{number}.JPEG", colour, (60, 90) if number % 2 else (120, 70))
        for number in range(2):
            write(root / "val" / name / f"{number}.JPEG", colour)
    return root


@pytest.fixture
def root(folders: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(folders, tmp_path / "imagenet"))


def opened(root: Path, seed: int = 0, **options: object) -> Dataset:
    return Imagenet(ImagenetOptions(str(root), workers=2, **options)).open(SHAPE, seed)  # type: ignore[arg-type]


def passes(dataset: Dataset, split: str = "train", batch: int = 8, epoch: int = 1) -> list[Batch]:
    return list(dataset.batches(split, batch, epoch))  # type: ignore[arg-type]


def labels(batches: list[Batch]) -> list[int]:
    return [label for batch in batches for label in batch.labels.tolist()]


def is_coloured(batch: Batch) -> bool:
    """Whether each image has the colour of its label."""
    assert isinstance(batch, PixelBatch)
    means = batch.pixels.mean((2, 3))
    return bool(np.abs(means - np.array(COLOURS)[batch.labels]).max() < 3)


@pytest.mark.parametrize("source", ["folders", "prepared", pytest.param("records", marks=pytest.mark.gluon)])
def test_each_source_gives_every_image_with_its_label(source: str, root: Path) -> None:
    make_source(source, root)
    plugin = Imagenet(ImagenetOptions(str(root), source=source, workers=2))
    assert plugin.check().ok
    info = plugin.info()
    assert (info.classes, info.train_images, info.validation_images) == (3, 24, 6)
    dataset = plugin.open(SHAPE, 0)
    train, validation = passes(dataset, batch=8), passes(dataset, "validation", batch=4)
    assert [len(batch.labels) for batch in train] == [8, 8, 8] and sorted(labels(train)) == sorted([0, 1, 2] * 8)
    assert [len(batch.labels) for batch in validation] == [4, 2] and labels(validation) == [0, 0, 1, 1, 2, 2]
    assert all(map(is_coloured, [*train, *validation]))
    assert all(batch.images.shape[1:] == SHAPE and batch.images.dtype == np.float32 for batch in train)


def make_source(source: str, root: Path) -> None:
    if source == "prepared":
        prepared(Imagenet(ImagenetOptions(str(root))))
    if source == "records":
        pack(root)
    if source != "folders":
        shutil.rmtree(root / "train")
        shutil.rmtree(root / "val")


def pack(root: Path) -> None:
    from energybench_plugins.engines.mxnet_import import import_mxnet

    recordio = import_mxnet().recordio
    for split in ("train", "val"):
        written = recordio.MXIndexedRecordIO(str(root / f"in_{split}.idx"), str(root / f"in_{split}.rec"), "w")
        for number, path in enumerate(sorted((root / split).rglob("*.JPEG"))):
            header = recordio.IRHeader(0, float(CLASSES.index(path.parent.name)), number, 0)
            written.write_idx(number, recordio.pack(header, path.read_bytes()))
        written.close()


def test_batches_depend_on_seed_and_epoch_alone(folders: Path) -> None:
    def pixels(workers: int, seed: int = 0, epoch: int = 1) -> np.ndarray:
        dataset = Imagenet(ImagenetOptions(str(folders), workers=workers, ahead=workers)).open(SHAPE, seed)
        return np.concatenate([batch.images for batch in passes(dataset, epoch=epoch)])

    one = pixels(1)
    assert np.array_equal(one, pixels(3))
    assert not np.array_equal(one, pixels(1, seed=1)) and not np.array_equal(one, pixels(1, epoch=2))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_workers_share_a_batch_and_together_see_what_one_sees(split: str, folders: Path) -> None:
    alone = passes(opened(folders), split, batch=7)
    parts = []
    for rank in range(3):
        dataset = opened(folders)
        assert isinstance(dataset, Adapting)
        dataset.adapt(Consumer(rank, 3))
        parts.append(passes(dataset, split, batch=7))
    for whole, shares in zip(alone, zip(*parts, strict=True), strict=True):
        assert [share.whole for share in shares] == [len(whole.labels)] * 3 and whole.whole is None
        assert max(len(share.labels) for share in shares) - min(len(share.labels) for share in shares) <= 1
        assert np.array_equal(np.concatenate([share.images for share in shares]), whole.images)


@pytest.fixture
def damaged(root: Path) -> Path:
    """One file that is no image and one that ends early."""
    (root / "train" / "n01" / "0.JPEG").write_bytes(b"no image")
    whole = (root / "train" / "n02" / "1.JPEG").read_bytes()
    (root / "train" / "n02" / "1.JPEG").write_bytes(whole[: len(whole) // 2])
    (root / "val" / "n03" / "1.JPEG").write_bytes(b"")
    return root


def test_what_cannot_be_read_is_named_and_passed_over(damaged: Path) -> None:
    dataset = opened(damaged)
    train, validation = passes(dataset), passes(dataset, "validation", batch=6)
    assert [len(batch.labels) for batch in train] == [8, 8, 8], "batches keep their size"
    assert labels(validation) == [0, 0, 1, 1, 2], "and validation counts what there is"
    assert all(map(is_coloured, [*train, *validation])), "labels go with their images"
    assert isinstance(dataset, Reporting)
    names = {Path(name).relative_to(damaged).as_posix() for name in dataset.unreadable()}
    assert names == {"train/n01/0.JPEG", "train/n02/1.JPEG", "val/n03/1.JPEG"}


def test_or_it_is_an_error(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"n0[12]/[01]\.JPEG: .*set dataset\.on_corrupt=skip"):
        passes(opened(damaged, on_corrupt="fail"))


def test_a_batch_of_which_nothing_can_be_read_is_an_error(root: Path) -> None:
    for path in (root / "train").rglob("*.JPEG"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="not one image of a batch can be read"):
        passes(opened(root))


def test_preparing_shrinks_large_images_leaves_small_ones_and_names_what_it_leaves_out(damaged: Path) -> None:
    plugin = Imagenet(ImagenetOptions(str(damaged), shorter_side=64))
    assert isinstance(plugin, Preparable)
    found = Prepared(prepared(plugin))
    train = found.open("train")
    assert (len(train), len(found.skipped("train")), len(found.skipped("validation"))) == (22, 2, 1)
    heights, widths = train.numbers("height"), train.numbers("width")
    assert set(zip(heights.tolist(), widths.tolist(), strict=True)) == {(60, 90), (110, 64)}
    small = next(number for number in range(len(train)) if heights[number] == 60)
    assert bytes(train[small]) == (damaged / "train" / "n01" / "1.JPEG").read_bytes()
    assert jpeg.size(train[0]) == (heights[0], widths[0])


def test_the_class_list_says_which_folders_count_and_in_which_order(root: Path) -> None:
    listed = root / "classes.txt"
    listed.write_text("# synsets\nn03 tench, Tinca tinca\n\nn01 goldfish\n")
    plugin = Imagenet(ImagenetOptions(str(root), classes=str(listed), workers=1))
    assert plugin.info().classes == 2 and plugin.info().train_images == 16
    validation = passes(plugin.open(SHAPE, 0), "validation")[0]
    assert isinstance(validation, PixelBatch)
    assert validation.labels.tolist() == [0, 0, 1, 1]
    assert np.abs(validation.pixels[0].mean((1, 2)) - COLOURS[2]).max() < 3
    listed.write_text("n01\nn77\n")
    with pytest.raises(DataError, match=r"train lacks 1 of 2 classes: n77"):
        Imagenet(ImagenetOptions(str(root), classes=str(listed))).info()
    listed.write_text("n01\nn01\n")
    with pytest.raises(DataError, match="'n01' stands there twice"):
        Imagenet(ImagenetOptions(str(root), classes=str(listed))).info()


def test_where_nothing_is_the_check_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENERGYBENCH_DATA", raising=False)
    assert "set dataset.root" in str(Imagenet(ImagenetOptions()).check())
    state = Imagenet(ImagenetOptions(str(tmp_path))).check()
    assert not state.ok and f"no images found in {tmp_path}" in state.detail


def test_it_is_found_below_energybench_data(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGYBENCH_DATA", str(folders.parent))
    (folders.parent / "imagenet").symlink_to(folders)
    try:
        assert Imagenet(ImagenetOptions()).info().train_images == 24
    finally:
        (folders.parent / "imagenet").unlink()


@pytest.mark.parametrize(
    "options",
    [
        *({"source": "tar"}, {"on_corrupt": "ask"}, {"decode": "tpu"}, {"workers": 0}, {"scale": [0.5]}, {"flip": 2.0}),
        *({"ratio": [2.0, 1.0]}, {"centre": 0.0}, {"mean": [0.5]}, {"std": [1.0, 1.0, 0.0]}, {"shorter_side": 0}),
        *({"quality": 0}, {"ahead": -1}),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"dataset\.{next(iter(options))}="):
        ImagenetOptions(**options)  # type: ignore[arg-type]


def test_a_consumer_that_decodes_is_given_files_and_views(damaged: Path) -> None:
    alone, dataset = passes(opened(damaged)), opened(damaged, decode="gpu")
    assert isinstance(dataset, Adapting)
    with pytest.raises(DataError, match="engine=torch"):
        dataset.adapt(Consumer())
    dataset.adapt(Consumer(kinds=(EncodedBatch,)))
    for batch, decoded in zip(passes(dataset), alone, strict=True):
        assert np.array_equal(batch.images, decoded.images)
    assert any(isinstance(batch, EncodedBatch) for batch in passes(opened_for_device(damaged)))


def opened_for_device(root: Path) -> Dataset:
    for name in ("n01", "n02"):
        shutil.rmtree(root / "train" / name)
    dataset = opened(root.parent / "imagenet", decode="gpu", classes=one_class(root))
    assert isinstance(dataset, Adapting)
    dataset.adapt(Consumer(kinds=(EncodedBatch,)))
    return dataset


def one_class(root: Path) -> str:
    (root / "one.txt").write_text("n03\n")
    return str(root / "one.txt")


def test_held_images_are_decoded_once_and_views_are_cut_from_them(damaged: Path) -> None:
    dataset = opened(damaged, resident=True)
    assert isinstance(dataset, Adapting) and isinstance(dataset, Reporting)
    with pytest.raises(DataError, match="keeps no images"):
        dataset.adapt(Consumer())
    dataset.adapt(Consumer(kinds=(HeldBatch,)))
    assert len(dataset.unreadable()) == 3
    train, validation = passes(dataset, batch=7), passes(dataset, "validation", batch=5)
    assert [len(batch.labels) for batch in train] == [7, 7, 7] and labels(validation) == [0, 0, 1, 1, 2]
    assert isinstance(dataset, Holding)
    assert {batch.held for batch in train if isinstance(batch, HeldBatch)} == {dataset.held("train")}
    for batch in [*train, *validation]:
        means = (batch.images * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]).mean((2, 3)) * 255
        assert batch.images.shape[1:] == SHAPE
        assert np.abs(means - np.array(COLOURS)[batch.labels]).max() < 3


class TestTheCommand:
    """`energybench prepare`, in this process."""

    def run(self, root: Path, *words: str) -> int:
        return main(["prepare", "dataset=imagenet", f"dataset.root={root}", "--workers", "1", *words])

    def test_says_what_it_made_and_left_out_and_verifies_it(
        self, damaged: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(damaged) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "imagenet: 22 of train, 5 of validation" in out and "in 2 parts" in out
        assert "n01/0.JPEG: no image that can be decoded" in out
        assert self.run(damaged, "--verify") == 0
        assert "2 parts" in capsys.readouterr().out
        part = damaged / "energybench" / "train-00000.arrow"
        data = part.read_bytes()
        part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert self.run(damaged, "--verify") == 1
        assert "train-00000.arrow: not as it was written" in capsys.readouterr().out

    def test_other_options_are_refused_unless_asked_for_anew(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(root) == 0
        assert self.run(root, "dataset.shorter_side=40") == 2
        assert "prepared from something else (shorter_side); add --again" in capsys.readouterr().err
        assert self.run(root, "dataset.shorter_side=40", "--again") == 0
        assert Prepared(root / "energybench").open("train").numbers("height").min() == 40

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["dataset=digits"], "dataset 'digits' needs no preparation"),
            (["dataset=imagenet", "--workers", "0"], "--workers 0: give a whole number from 1"),
            (["dataset=imagenet", "dataset.root=/nowhere"], "no images found in /nowhere"),
            (["dataset=imagenet", "dataset.rot=x"], "unknown key 'dataset.rot'"),
        ],
    )
    def test_wrong_words_are_one_line(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["prepare", *words]) == 2
        said = capsys.readouterr().err
        assert message in said and len(said.strip().splitlines()) == 1


def test_a_run_names_and_counts_what_it_could_not_read(damaged: Path, fakes: Path, tmp_path: Path) -> None:
    """By two workers, each of which decodes its own part."""
    registry = Registry()
    config = {
        "model": {"name": "resnetim", "input_size": 32},
        "dataset": {"name": "imagenet", "root": str(damaged), "workers": 2},
        "engine": {"name": "standin", "processes": True},
        "meter": {"name": "scripted"},
        "gpu": {"name": "pascal", "count": 2},
        "batch": 8,
        "budget": {"epochs": 1},
        "measure": {"baseline_s": 0.0, "warmup_steps": 0},
        "tracking": {"name": "none"},
    }
    plan = plan_of(resolve(OmegaConf.create(config), registry), Machine(registry))
    result = execute(plan, Place(tmp_path / "run"), Silent())
    assert result.status == "finished", result.failure
    assert result.metrics["unreadable_samples"] == 3
    lines = [line for path in (tmp_path / "run").glob("unreadable*.tsv") for line in path.read_text().splitlines()]
    names = {Path(line.split("\t")[0]).relative_to(damaged).as_posix() for line in lines}
    assert names == {"train/n01/0.JPEG", "train/n02/1.JPEG", "val/n03/1.JPEG"}
    [validated] = [phase for phase in result.phases if phase.name == "validate"]
    assert validated.values["images"] == 3  # of 6, the first of two workers was given so many


class TestViews:
    def shares_one_by_one(self, count: int, random: np.random.Generator) -> list[float]:
        """Of 300 x 400 pixels, as the paper's recipe is usually written down: draw until a box fits."""
        shares = []
        while len(shares) < count:
            area, ratio = random.uniform(0.08, 1) * 120_000, np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            tall, wide = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
            if tall <= 300 and wide <= 400:
                shares.append(tall * wide / 120_000)
        return shares

    def test_random_boxes_lie_inside_and_are_distributed_as_asked(self) -> None:
        heights, widths = np.full(4000, 300), np.full(4000, 400)
        crop = RandomCrop()
        drawn = crop.draw(4000, np.random.default_rng(0))
        boxes = crop.boxes(heights, widths, drawn)
        top, left, tall, wide = boxes.T
        assert (top >= 0).all() and (left >= 0).all() and (tall > 0).all() and (wide > 0).all()
        assert (top + tall <= 300).all() and (left + wide <= 400).all()
        share, ratio = tall * wide / (300 * 400), wide / tall
        assert share.min() > 0.07 and share.max() <= 1
        expected = self.shares_one_by_one(4000, np.random.default_rng(1))
        assert np.abs(np.quantile(share, [0.1, 0.5, 0.9]) - np.quantile(expected, [0.1, 0.5, 0.9])).max() < 0.03
        assert ratio.min() > 0.7 and ratio.max() < 1.4 and abs(drawn.flips.mean() - 0.5) < 0.03

    def test_an_image_too_narrow_for_any_box_gives_its_middle(self) -> None:
        crop = RandomCrop(scale=(1.0, 1.0))
        boxes = crop.boxes(np.array([400, 30]), np.array([30, 400]), crop.draw(2, np.random.default_rng(0)))
        assert boxes.tolist() == [[180, 0, 40, 30], [0, 180, 30, 40]]

    def test_the_middle_is_what_resizing_and_cropping_gives(self) -> None:
        boxes = CentreCrop(224 / 256).boxes(np.array([256, 512]), np.array([341, 512]), 224, 224)
        assert boxes.tolist() == [[16, 58, 224, 224], [32, 32, 448, 448]]


class TestJpeg:
    def test_a_view_is_what_it_is_of_the_whole_image(self) -> None:
        """Against OpenCV's decoder; decoded to a half on the way, it is a little smoother."""
        rows, columns = np.mgrid[:200, :300]
        picture = np.stack([rows, columns * 0.8, 128 + 60 * np.sin(rows / 20)], 2).astype(np.uint8)
        data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        for box in ([20, 30, 100, 150], [0, 0, 200, 300]):
            top, left, tall, wide = box
            wanted = cv2.resize(picture[top : top + tall, left : left + wide], (75, 50), interpolation=cv2.INTER_AREA)
            for flip in (False, True):
                out = np.empty((50, 75, 3), np.uint8)
                jpeg.view(data, (200, 300), box, flip, out)
                assert np.abs(out[:, ::-1] - wanted.astype(int) if flip else out - wanted.astype(int)).mean() < 3

    def test_files_that_are_no_jpeg_and_colours_that_are_no_rgb(self) -> None:
        picture = np.full((20, 30, 3), (10, 20, 30), np.uint8)
        png = cv2.imencode(".png", picture)[1]
        assert jpeg.size(png) == (20, 30) and jpeg.decode(png)[0, 0].tolist() == [30, 20, 10]
        grey = cv2.imencode(".jpg", picture[..., 0])[1]
        assert jpeg.decode(grey).shape == (20, 30, 3)

    def test_bytes_before_a_marker_do_no_harm(self) -> None:
        data = cv2.imencode(".jpg", np.full((16, 16, 3), 90, np.uint8))[1].tobytes()
        assert abs(int(jpeg.decode(data[:-2] + b"\0\0\0" + data[-2:]).mean()) - 90) <= 1
