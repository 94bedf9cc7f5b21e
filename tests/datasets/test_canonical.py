"""COCO's format as other tools write it means the same as COCO's own, to the last digit."""

import json
import random
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from conftest import Command
from faulty_trees import write_plain_coco
from PIL import Image

from pvt_bench.builders import build_module, build_network, open_data
from pvt_bench.config.command_line import compose_cells
from pvt_bench.datasets.loading import eval_loader, train_loader
from pvt_bench.errors import InputError
from pvt_bench.training.loop import validate

Document = dict[str, Any]
WORDS = (
    "model=resnet18", "dataset=coco", "trainer=cpu", "trainer.workers=0",
    "dataset.shorter_side=32", "dataset.longer_side=64", "dataset.flip=0", "schedule.steps=1",
    "schedule.epochs=null", "schedule.batch_size=2", "schedule.milestones=[]",
)  # fmt: skip
SPLITS = ("train2017", "val2017")


def change(root: Path, edit: Callable[[Document], Any], splits: tuple[str, ...] = SPLITS) -> Path:
    """Edit the annotation files of a tree."""
    for split in splits:
        path = root / f"annotations/instances_{split}.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))
    return root


def each(part: str, edit: Callable[[dict[str, Any]], Any]) -> Callable[[Document], None]:
    """An edit of every entry of a list."""

    def apply(document: Document) -> None:
        for row in document[part]:
            edit(row)

    return apply


def name_images(document: Document) -> None:
    for row in document["images"]:
        row["id"] = f"img_{row['id']}"
    for row in document["annotations"]:
        row["image_id"] = f"img_{row['image_id']}"


def write_ids_as_text(document: Document) -> None:
    for row in (*document["images"], *document["annotations"], *document["categories"]):
        for key in ("id", "image_id", "category_id", "width", "height"):
            if key in row:
                row[key] = str(row[key])


def without_last_crowd(document: Document) -> None:
    document["annotations"][-1].pop("iscrowd")


# What other tools write that has one meaning only, and what is said of it.
SAME: dict[str, tuple[Callable[[Document], Any], str]] = {
    "no iscrowd": (each("annotations", lambda row: row.pop("iscrowd")), ""),
    "one without iscrowd": (without_last_crowd, ""),
    "iscrowd null": (each("annotations", lambda row: row.update(iscrowd=None)), ""),
    "iscrowd false": (each("annotations", lambda row: row.update(iscrowd=False)), ""),
    "iscrowd as text": (each("annotations", lambda row: row.update(iscrowd="0")), ""),
    "ids from 0": (
        each("annotations", lambda row: row.update(id=row["id"] - 1)),
        "8 annotation ids numbered anew from 1",
    ),
    "no ids of objects": (
        each("annotations", lambda row: row.pop("id")),
        "8 annotation ids numbered anew from 1",
    ),
    "no areas": (
        each("annotations", lambda row: row.pop("area")),
        "8 areas computed from masks or boxes",
    ),
    "areas null, no masks": (
        each("annotations", lambda row: row.update(area=None, segmentation=None)),
        "8 areas computed from masks or boxes",
    ),
    "areas as text": (each("annotations", lambda row: row.update(area=str(row["area"]))), ""),
    "ids as text": (write_ids_as_text, ""),
    "ids as fractions": (each("images", lambda row: row.update(id=float(row["id"]))), ""),
    "images with names for ids": (name_images, "4 image ids numbered anew from 1"),
}


def compose(root: Path, tmp_path: Path, task: str = "coco_retinanet", *words: str) -> Any:
    words = (*WORDS, f"task={task}", f"dataset.root={root}", f"results_dir={tmp_path}/r", *words)
    return compose_cells(list(words))[0].config


def outcome(config: Any, directory: Path) -> tuple[list[float], dict[str, float]]:
    """The losses of two steps and the scores after them, with tables and pictures, in process."""
    data = open_data(config)
    torch.manual_seed(0)
    network = build_network(config, data["train"].num_classes)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    losses = []
    for images, targets in train_loader(data["train"], 2, 0, 0, 0, 2):
        parts = network(images, targets)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        losses += [part.item() for part in parts.values()]
    network.score_threshold = 0.0  # so that there is something to score
    module = build_module(config, network, None, data["val"])
    directory.mkdir(parents=True)
    loader = eval_loader(data["val"], 4, 0)
    validate(module, loader, config.trainer, directory, lambda count: None)
    return losses, module.score(directory)


def content(config: Any) -> list[Any]:
    """All that training and the score are made from: images, targets and the truth.

    A file may have another name, and outlines, which RetinaNet does not use, may be missing.
    """
    held: list[Any] = []
    torch.manual_seed(0)
    for view in open_data(config).values():
        truth = view.ground_truth
        held += [
            [{key: row[key] for key in row if key != "file_name"} for row in truth["images"]],
            [
                {key: row[key] for key in row if key != "segmentation"}
                for row in truth["annotations"]
            ],
            truth["categories"],
            *(
                (image.numpy(), {key: each.numpy() for key, each in target.items()})
                for image, target in view
            ),
        ]
    return held


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    place = tmp_path_factory.mktemp("plain")
    return content(compose(write_plain_coco(place / "data"), place))


@pytest.mark.parametrize("name", SAME)
def test_other_ways_to_write_the_same(
    name: str, plain: list[Any], tmp_path: Path, capsys: Any
) -> None:
    edit, said = SAME[name]
    config = compose(change(write_plain_coco(tmp_path / "data"), edit), tmp_path)
    np.testing.assert_equal(content(config), plain)
    assert said in capsys.readouterr().out


def test_areas_are_those_of_masks_else_of_boxes(tmp_path: Path) -> None:
    def remove(document: Document) -> None:
        for row in document["annotations"]:
            row.pop("area")
        x, y, width, height = document["annotations"][0]["bbox"]
        half = [x, y, x + width, y, x, y + height]  # a triangle
        document["annotations"][0]["segmentation"] = [half]
        document["annotations"][1]["segmentation"] = []
        document["annotations"][1]["bbox"] = [1, 2, 10, 7]

    config = compose(change(write_plain_coco(tmp_path / "data"), remove), tmp_path)
    truth = open_data(config)["val"].ground_truth["annotations"]
    assert truth[0]["area"] == pytest.approx(20 * 30 / 2, rel=0.1)
    assert truth[1]["area"] == 70


def test_without_iscrowd_through_the_command(
    command: Command, tmp_path: Path, results: Path
) -> None:
    """Score, table by class and pictures were made of the file as it is, after the training."""

    def edit(document: Document) -> None:
        each("annotations", lambda row: [row.pop(key) for key in ("iscrowd", "area", "id")])(
            document
        )
        document["categories"][1]["name"] = "cat"

    root = change(write_plain_coco(tmp_path / "data"), edit)
    done = command(*WORDS, "task=coco_retinanet", f"dataset.root={root}")
    assert done.returncode == 0, done.stderr
    assert (
        "instances_val2017.json: 2 categories of one name told apart by their id, 8 areas computed "
        "from masks or boxes, 8 annotation ids numbered anew from 1"
    ) in done.stdout
    (table,) = results.glob("runs/*/*/*/per_class.csv")
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == [
        "cat (1)",
        "cat (3)",
    ]


def rename(root: Path, spelt: Callable[[str], str], written: Callable[[str], str]) -> Path:
    """Rename the images to `spelt`, and write `written` into the annotation files."""
    for split in SPLITS:
        for path in list((root / split).glob("*.jpg")):
            target = root / split / spelt(path.name)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    return change(root, each("images", lambda row: row.update(file_name=written(row["file_name"]))))


DECOMPOSED, COMPOSED = (unicodedata.normalize(form, "é ") for form in ("NFD", "NFC"))
SPELT: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "decomposed": (lambda name: COMPOSED + name, lambda name: DECOMPOSED + name),
    "composed": (lambda name: DECOMPOSED + name, lambda name: COMPOSED + name),
    "encoded": (lambda name: "my photo " + name, lambda name: quote("my photo " + name)),
    "backslash": (lambda name: f"images/{name}", lambda name: f"images\\{name}"),
    "all at once": (
        lambda name: f"images/{COMPOSED}{name}",
        lambda name: quote(f".\\images\\{DECOMPOSED}{name}"),
    ),
}


@pytest.mark.parametrize("name", SPELT)
def test_names_of_files_in_another_spelling(
    name: str, plain: list[Any], tmp_path: Path, capsys: Any
) -> None:
    root = rename(write_plain_coco(tmp_path / "data"), *SPELT[name])
    np.testing.assert_equal(content(compose(root, tmp_path)), plain)
    assert "4 file names found under another spelling" in capsys.readouterr().out


def test_the_folder_in_front_of_a_name(tmp_path: Path, capsys: Any) -> None:
    root = write_plain_coco(tmp_path / "data")
    for split in SPLITS:

        def put_in_front(row: dict[str, Any], split: str = split) -> None:
            row["file_name"] = f"./{split}/{row['file_name']}"

        change(root, each("images", put_in_front), (split,))
    assert len(open_data(compose(root, tmp_path))["val"]) == 4
    assert "4 file names found under another spelling" in capsys.readouterr().out


@pytest.mark.parametrize("outside", ["../train2017/000000000001.jpg", "{root}/secret.jpg"])
def test_no_name_leads_out_of_the_folder(outside: str, tmp_path: Path) -> None:
    root = write_plain_coco(tmp_path / "data")
    (root / "secret.jpg").write_bytes((root / "val2017/000000000001.jpg").read_bytes())
    name = outside.format(root=root)
    change(root, lambda document: document["images"][0].update(file_name=name), ("val2017",))
    with pytest.raises(InputError, match="images are missing in"):
        open_data(compose(root, tmp_path))


MASKS = ("task=coco_mask_rcnn",)


def test_boxes_without_outlines_are_refused_for_masks(command: Command, tmp_path: Path) -> None:
    root = change(
        write_plain_coco(tmp_path / "data"),
        each("annotations", lambda row: row.update(segmentation=[])),
    )
    done = command(*WORDS, *MASKS, f"dataset.root={root}")
    assert done.returncode == 2
    assert "segmentation missing: annotations/instances_train2017.json annotation 1" in done.stderr
    assert "task=coco_retinanet" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flat_list_of_points_is_one_polygon(tmp_path: Path, capsys: Any) -> None:
    root = change(
        write_plain_coco(tmp_path / "data"),
        each("annotations", lambda row: row.update(segmentation=row["segmentation"][0])),
    )
    whole = write_plain_coco(tmp_path / "whole")
    masks = [
        open_data(compose(place, tmp_path, "coco_mask_rcnn"))["val"][0][1]["masks"]
        for place in (root, whole)
    ]
    assert torch.equal(*masks)
    assert masks[0].any()
    assert "8 flat lists of points read as one polygon" in capsys.readouterr().out


def mark_turned(root: Path) -> None:
    """Have EXIF say of all images that they are to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in root.glob("*2017/*.jpg"):
        with Image.open(path) as image:
            image.load()
            image.save(path, exif=exif)


def test_annotations_of_images_as_they_are_stored(command: Command, tmp_path: Path) -> None:
    root = write_plain_coco(tmp_path / "data")
    mark_turned(root)
    refused = command(*WORDS, "task=coco_retinanet", f"dataset.root={root}")
    assert refused.returncode == 2
    assert "image turned by EXIF, its annotations not: train2017/000000000001.jpg" in refused.stderr
    assert "dataset.exif=ignore" in refused.stderr
    view = open_data(compose(root, tmp_path, "coco_retinanet", "dataset.exif=ignore"))["val"]
    assert view[0][1]["size"].tolist() == [64, 80]
    assert view[0][0].shape == (3, 32, 40)


def test_upright_annotations_ask_for_upright_images(tmp_path: Path) -> None:
    root = write_plain_coco(tmp_path / "data")
    mark_turned(root)

    def turn(row: dict[str, Any]) -> None:
        row["height"], row["width"] = row["width"], row["height"]

    change(root, each("images", turn))
    with pytest.raises(InputError, match=r"dataset\.exif=apply"):
        open_data(compose(root, tmp_path, "coco_retinanet", "dataset.exif=ignore"))
    with pytest.raises(InputError, match=r"There is no dataset\.exif=ignor"):
        open_data(compose(root, tmp_path, "coco_retinanet", "dataset.exif=ignor"))


@pytest.mark.parametrize("val", ["valid", "test"])
def test_the_way_from_roboflows_layout_can_be_typed(val: str, tmp_path: Path) -> None:
    root = write_plain_coco(tmp_path / "an export")
    for split, folder in zip(SPLITS, ("train", val), strict=True):
        annotations = root / f"annotations/instances_{split}.json"
        (root / split).rename(root / folder)
        annotations.rename(root / folder / "_annotations.coco.json")
    (root / "annotations").rmdir()
    with pytest.raises(InputError, match="as Roboflow exports it") as caught:
        open_data(compose(root, tmp_path))
    subprocess.run(["sh", "-ec", str(caught.value).split("Run there: ")[1]], cwd=root, check=True)
    assert len(open_data(compose(root, tmp_path))["val"]) == 4


VALUES: tuple[Any, ...] = (
    None, "", "x", "7", "7.5", 0, -1, 1, 3, 2.0, 0.5, -7.5, 1e308, -1e308, 10**30, 10**400,
    float("nan"), float("inf"), True, False, [], {}, [1], [[1, 2]], {"a": {"b": [1]}},
    "\ud800", "x" * 5000,
)  # fmt: skip
KEYS = {
    "images": ("id", "file_name", "height", "width"),
    # Those that training can do without are drawn more often, or hardly any data would pass.
    "annotations": (
        *("image_id", "category_id", "bbox"),
        *("id", "bbox", "area", "iscrowd", "segmentation") * 2,
    ),
    "categories": ("id", "name"),
}
REMOVED = object()


def respell(value: Any) -> Any:
    """A value as another tool may write it."""
    return str(value) if isinstance(value, int | float) else value


# Each gives a new value for an old one.
CHANGES: tuple[Callable[[Any, random.Random], Any], ...] = (
    lambda value, draw: REMOVED,
    lambda value, draw: None,
    lambda value, draw: respell(value),
    lambda value, draw: float(value) if type(value) is int else value,
    lambda value, draw: draw.choice(VALUES),
    lambda value, draw: draw.choice(VALUES),
)


def spoil(document: Document, draw: random.Random) -> None:
    """Put odd values into one or two places."""
    for _ in range(draw.randint(1, 2)):
        part = draw.choice(["images", "annotations", "annotations", "annotations", "categories"])
        key = draw.choice(KEYS[part])
        rows = document[part]
        change = draw.choice(CHANGES)
        for row in rows if draw.random() < 0.3 else [draw.choice(rows)]:
            if draw.random() < 0.1:
                row[key] = rows[0].get(key)  # a duplicate
            elif isinstance(row.get(key), list) and draw.random() < 0.5:
                spoil_list(row[key], draw)
            elif (value := change(row.get(key), draw)) is REMOVED:
                row.pop(key, None)
            else:
                row[key] = value


def spoil_list(values: list[Any], draw: random.Random) -> None:
    """Put an odd value somewhere into a box, or into the first polygon."""
    while values and isinstance(values[0], list):
        values = values[0]
    if values:
        values[draw.randrange(len(values))] = draw.choice(VALUES)


def canonical(config: Any, root: Path, target: Path) -> Path:
    """The same data as COCO itself would write it, from what the views hold."""
    data = open_data(config)
    for split, view in zip(SPLITS, (data["train"], data["val"]), strict=True):
        (target / "annotations").mkdir(parents=True, exist_ok=True)
        text = json.dumps(view.ground_truth)
        (target / f"annotations/instances_{split}.json").write_text(text)
        (target / split).symlink_to(root / split)
    return target


def try_seed(seed: int, place: Path) -> bool:
    """Whether random data passes the start check; it then works, and equals its canonical form."""
    draw = random.Random(seed)
    root = write_plain_coco(place / "data")
    change(root, lambda document: spoil(document, draw), draw.choice([SPLITS, *zip(SPLITS)]))
    task = draw.choice(["coco_retinanet", "coco_retinanet", "coco_mask_rcnn"])
    config = compose(root, place, task)
    try:
        target = canonical(config, root, place / "canonical")
    except InputError:
        return False
    again = compose(target, place, task)
    np.testing.assert_equal(outcome(config, place / "a"), outcome(again, place / "b"))
    return True


SEEDS = 15
SLOW = [pytest.param(start, marks=pytest.mark.slow) for start in range(SEEDS, 20 * SEEDS, SEEDS)]


@pytest.mark.parametrize("start", [0, *SLOW])
def test_random_data_works_or_is_refused(start: int, tmp_path: Path) -> None:
    seeds = range(start, start + SEEDS)
    passed = [seed for seed in seeds if try_seed(seed, tmp_path / str(seed))]
    assert 0 < len(passed) < SEEDS
