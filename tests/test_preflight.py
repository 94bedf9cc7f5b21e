"""Every kind of fault is found where it was planted, and nothing in a whole tree."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faulty_trees
import pytest
from ade20k_tree import write_ade20k_tree
from coco_tree import CMYK_IMAGE, FLAT_BOX_ID, GREY_IMAGE, PALETTE_IMAGE, write_coco_tree
from conftest import environment, wait
from faulty_trees import ADE20K, IMAGENET, IMAGES, JSON, VAL, VICTIM, save_noise, write_plain_coco
from imagenet_tree import write_imagenet_tree

from pvt_bench.datasets.ade20k.tree import ADE20KTree
from pvt_bench.datasets.coco.reader import Coco
from pvt_bench.datasets.coco.tree import CocoTree
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey
from pvt_bench.datasets.faults.images import Job, inspect
from pvt_bench.datasets.faults.kinds import Fault, Kind, forgive
from pvt_bench.datasets.folders import ImageFolder
from pvt_bench.datasets.imagenet.reader import ImageNet
from pvt_bench.datasets.imagenet.tree import ImageNetTree
from pvt_bench.errors import InputError
from pvt_bench.preflight import main

BOTH = ("train", "val")
Preflight = Callable[..., subprocess.CompletedProcess[str]]
Inside = Callable[..., tuple[int, str, str]]

CASES = [
    *(("detection", name, plant) for name, plant in (IMAGES | JSON).items()),
    *(("segmentation", name, plant) for name, plant in ADE20K.items()),
    *(("classification", name, plant) for name, plant in IMAGENET.items()),
]
WRITERS = {
    "detection": write_plain_coco,
    "segmentation": write_ade20k_tree,
    "classification": write_imagenet_tree,
}
LAYOUTS: dict[str, type[ImageFolder]] = {
    "detection": CocoTree,
    "segmentation": ADE20KTree,
    "classification": ImageNetTree,
}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tree of each view, to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    for view, write in WRITERS.items():
        write(folder / view)
    return folder


@pytest.fixture
def tree(whole: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A fresh copy of a view's tree."""
    return lambda view: Path(shutil.copytree(whole / view, tmp_path / view))


def survey(root: Path, view: str, **options: Any) -> dict[str, Survey]:
    layout = LAYOUTS[view](view, str(root), None, "error", "apply", None)
    return layout.survey(view, BOTH, **options)


def find(root: Path, view: str, **options: Any) -> list[Fault]:
    """All faults of a tree, as the command finds them but in this process."""
    surveys = survey(root, view, **options)
    seen = [fault for found in surveys.values() for fault in found.faults]
    return seen + [
        fault for found in surveys.values() for job in found.jobs for fault in inspect(job)
    ]


def names(faults: list[Fault]) -> set[tuple[str, str]]:
    return {(fault.kind.name, fault.where) for fault in faults}


@pytest.mark.parametrize("view", WRITERS)
def test_a_whole_tree_has_no_fault(view: str, whole: Path) -> None:
    surveys = survey(whole / view, view)
    assert find(whole / view, view) == []
    assert all(found.jobs and found.classes for found in surveys.values())


@pytest.mark.parametrize("view", WRITERS)
def test_the_built_in_data_has_no_fault(view: str, digits: Path) -> None:
    folder = {"detection": ".", "segmentation": "ade20k", "classification": "imagenet"}[view]
    options = {"masks": True} if view == "detection" else {}
    assert find(digits / folder, view, **options) == []


@pytest.mark.parametrize("val", ["devkit", "kaggle"])
def test_validation_images_as_they_come(val: str, tmp_path: Path) -> None:
    root = write_imagenet_tree(tmp_path / "imagenet", val)
    assert find(root, "classification") == []
    victim = root / "val" / "ILSVRC2012_val_00000003.JPEG"
    faulty_trees.cut(victim)
    assert names(find(root, "classification")) == {(kinds.DAMAGED.name, f"val/{victim.name}")}


@pytest.mark.parametrize(
    ("view", "plant"), [(v, p) for v, _, p in CASES], ids=[f"{v}-{n}" for v, n, _ in CASES]
)
def test_a_fault_is_found_where_it_is(
    view: str, plant: faulty_trees.Plant, tree: Callable[[str], Path]
) -> None:
    """It, and nothing beside it."""
    root = tree(view)
    expected = plant(root)
    options = {"masks": True} if view == "detection" else {}
    assert names(find(root, view, **options)) == expected


def test_every_kind_is_planted(tree: Callable[[str], Path], tmp_path: Path) -> None:
    planted: set[str] = set()
    for view, name, plant in CASES:
        planted |= {kind for kind, _ in plant(tree(view))}
        shutil.rmtree(tmp_path / view)
        assert planted, name
    every = {kind.name for kind in vars(kinds).values() if isinstance(kind, Kind)}
    # One is about the task's protocol, and so the command's; the other about dataset.exif=ignore.
    assert every - planted == {kinds.OTHER_CLASSES.name, kinds.SIZE_UPRIGHT.name}
    assert len(every) > 40


def test_oddities_that_the_readers_handle_are_notes(tmp_path: Path) -> None:
    root = write_coco_tree(tmp_path / "coco")
    found = find(root, "detection", masks=True)
    assert {fault.kind.severity for fault in found} == {"note"}
    assert names(found) >= {
        (kinds.BOX_WITHOUT_AREA.name, f"{VAL} annotation {FLAT_BOX_ID}"),
        (kinds.GREY.name, f"val2017/{GREY_IMAGE:012d}.jpg"),
        (kinds.PALETTE.name, f"val2017/{PALETTE_IMAGE:012d}.png"),
        (kinds.CMYK.name, f"val2017/{CMYK_IMAGE:012d}.jpg"),
    }
    Coco("coco", str(root), None, None, 0.0).detection("train")


def test_what_the_task_does_not_read_is_a_note(tree: Callable[[str], Path]) -> None:
    root = tree("detection")
    JSON["no segmentation"](root)
    (found,) = find(root, "detection", masks=False)
    assert (found.kind.name, found.kind.severity) == (kinds.NO_SEGMENTATION.name, "note")
    (found,) = find(root, "detection", masks=True)
    assert found.kind.severity == "error"


def test_an_image_that_training_leaves_out_is_a_note(tree: Callable[[str], Path]) -> None:
    root = tree("detection")
    path = root / faulty_trees.TRAIN
    document = json.loads(path.read_text())
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] > 2]
    path.write_text(json.dumps(document))
    (root / "train2017/000000000001.jpg").unlink()
    faulty_trees.cut(root / "train2017/000000000002.jpg")
    assert [(f.kind.name, f.kind.severity) for f in find(root, "detection")] == [
        (kinds.FILE_MISSING.name, "note"),
        (kinds.DAMAGED.name, "note"),
    ]
    Coco("coco", str(root), None, None, 0.0).quick_check("detection", "train")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_what_is_cut_short_for_the_reader_is_so_here(share: float, tmp_path: Path) -> None:
    """Though JPEGs are decoded at an eighth of their size here."""
    from pvt_bench.datasets.image_files import DamagedImage
    from pvt_bench.datasets.images import read_image

    path = tmp_path / "image.jpg"
    for options in ({"quality": 90}, {"quality": 90, "progressive": True}):
        save_noise(path, (500, 375), **options)
        assert inspect(Job(tmp_path, path.name)) == []
        faulty_trees.cut(path, share)
        with pytest.raises(DamagedImage):
            read_image(path)
        assert [fault.kind for fault in inspect(Job(tmp_path, path.name))] == [kinds.DAMAGED]


# The quick part.

UNSEEN = {"12 bits in 16", "truncated", "cut in its header", "text", "DDS", "HEIC"}


LAYOUT = {"missing", "no folder"}  # for these the reader shows what it expects


@pytest.mark.parametrize("name", [*IMAGES, *JSON])
def test_the_quick_check_refuses_what_it_can_see(
    name: str, tree: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every error but those within images, beyond their headers, and segmentations."""
    root = tree("detection")
    dataset = Coco("coco", str(root), None, None, 0.0, index=str(tmp_path / "index"))
    dataset.quick_check("detection", "train")
    dataset.quick_check("detection", "val")
    time.sleep(0.01)  # for another time of the file
    expected = (IMAGES | JSON)[name](root)
    errors = {
        fault.kind.name for fault in find(root, "detection") if fault.kind.severity == "error"
    }
    if not errors or name in UNSEEN:
        dataset.quick_check("detection", "val")
        return
    split = "train" if name == "other categories" else "val"
    with pytest.raises(InputError) as caught:
        dataset.quick_check("detection", split)
    kind, where = min(pair for pair in expected if pair[0] in errors)
    if name in LAYOUT:
        assert f"no COCO tree at {root}: {where.rstrip('/')}" in str(caught.value)
        return
    assert kind in str(caught.value) or name == "duplicate image id"
    assert where[:300] in str(caught.value) or name == "duplicate image id"
    assert "python -m pvt_bench.preflight" in str(caught.value)


def test_the_quick_check_of_the_other_layouts(tree: Callable[[str], Path], digits: Path) -> None:
    from omegaconf import OmegaConf

    from pvt_bench.config.folders import config_dir
    from pvt_bench.datasets.digits.reader import Digits

    built_in: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "dataset/digits.yaml"))
    dataset = Digits(**{k: v for k, v in built_in.items() if k != "_target_"} | {"root": digits})
    began = time.monotonic()
    for view in WRITERS:
        for split in BOTH:
            dataset.reader(view).quick_check(view, split)
    assert time.monotonic() - began < 5  # half a second where nothing else runs
    root = tree("classification")
    options: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "dataset/imagenet.yaml"))
    options = {k: v for k, v in options.items() if k != "_target_"} | {"root": root, "index": None}
    ImageNet(**options).quick_check("classification", "val")
    IMAGENET["empty"](root)
    with pytest.raises(InputError, match=r"empty file: train/n02084071"):
        ImageNet(**options).quick_check("classification", "train")
    ImageNet(**options | {"on_damaged": "skip"}).quick_check("classification", "train")
    with pytest.raises(InputError, match=r"no detection view.*dataset=coco"):
        ImageNet(**options).reader("detection")


def test_skipped_images_are_notes_in_training_only() -> None:
    faults = [Fault(kinds.DAMAGED, "a.jpg"), Fault(kinds.FILE_MISSING, "b.jpg")]
    train = [fault.kind.severity for fault in forgive(faults, "train", "skip")]
    assert train == ["note", "error"]
    assert list(forgive(faults, "val", "skip")) == faults
    assert list(forgive(faults, "train", "error")) == faults


# The command.


def arguments(*words: str) -> list[str]:
    return [sys.executable, "-m", "pvt_bench.preflight", *words]


@pytest.fixture
def preflight(tmp_path: Path) -> Preflight:
    """Run the command from an empty directory."""

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments(*words),
            cwd=tmp_path,
            env=environment(**more),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inside:
    """Run the command in this process, which has imported torch already."""
    monkeypatch.chdir(tmp_path)
    for name in ("PVT_BENCH_DATA", "PVT_BENCH_RESULTS", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return code, *capsys.readouterr()

    return run


def report(tmp_path: Path, dataset: str) -> dict[str, Any]:
    path = tmp_path / "results" / "preflight" / dataset / "preflight.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_command_lists_what_is_wrong(
    preflight: Preflight, tree: Callable[[str], Path], tmp_path: Path
) -> None:
    root = tree("detection")
    words = ("task=coco_mask_rcnn", "dataset=coco", f"dataset.root={root}")
    done = preflight(*words, "task.protocol.num_classes=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 errors, 0 notes" in done.stdout
    assert report(tmp_path, "coco")["images"] == 8

    expected = set.union(*(JSON[name](root) for name in ("unknown image", "no segmentation")))
    for name in ("other size", "duplicate file name"):
        expected |= (IMAGES | JSON)[name](root)
    done = preflight(*words)
    assert (done.returncode, done.stderr) == (1, "")
    content = report(tmp_path, "coco")
    seen = {(kind["name"], each["where"]) for kind in content["kinds"] for each in kind["faults"]}
    # Annotation 3 has lost its image by now, and with it the size of its segmentation.
    lost = {(kinds.NO_SEGMENTATION.name, f"{VAL} annotation 3")}
    assert seen == expected - lost | {(kinds.OTHER_CLASSES.name, split) for split in BOTH}
    assert content["errors"] == 3
    for kind, where in seen:
        assert kind in done.stdout
        assert where in done.stdout
    assert "81 x 64 pixels, expected 80 x 64" in done.stdout
    assert "3 errors, 2 notes" in done.stdout


def test_ten_faults_of_a_kind_are_shown_and_all_are_written(
    inside: Inside, tree: Callable[[str], Path], tmp_path: Path
) -> None:
    root = tree("classification")
    for number in range(25):
        save_noise(root / "train/n02084071" / f"{number:02}.JPEG", (40, 40), "L")
    words = ("task=imagenet_classification", "dataset=imagenet", f"dataset.root={root}")
    code, shown, _ = inside(*words, "task.protocol.num_classes=3")
    assert code == 0  # notes only
    assert len(re.findall(r"train/n02084071/\d\d\.JPEG", shown)) == 10
    assert "and 15 more" in shown
    (kind,) = report(tmp_path, "imagenet")["kinds"]
    assert (kind["name"], kind["count"], len(kind["faults"])) == (kinds.GREY.name, 25, 25)


def test_the_segmentation_of_ade20k(inside: Inside, tree: Callable[[str], Path]) -> None:
    root = tree("segmentation")
    ADE20K["unknown value"](root)
    words = ("task=ade20k_semantic_fpn", "dataset=ade20k", f"dataset.root={root}")
    code, shown, _ = inside(*words)
    assert code == 1
    assert f"{faulty_trees.ADE_MASK} (4, of at most 3)" in shown


WRONG = {
    "no task": ([], ["task", "coco_retinanet"]),
    "task": (["task=coco_retina"], ["task=coco_retina", "coco_retinanet"]),
    "dataset": (["task=coco_retinanet", "dataset=coc"], ["dataset=coc", "coco"]),
    "root": (
        ["task=coco_retinanet", "dataset=coco", "dataset.root=nowhere"],
        ["nowhere", "dataset.root=PATH"],
    ),
    "layout": (
        ["task=coco_retinanet", "dataset=coco", "dataset.root=."],
        ["instances_val2017.json", "dataset.root"],
    ),
    "no root": (["task=coco_retinanet", "dataset=coco"], ["PVT_BENCH_DATA", "dataset.root"]),
    "view": (
        [
            "task=coco_retinanet",
            "dataset=imagenet",
            "dataset.root=.",
            "schedule=coco_retinanet_digits",
        ],
        ["no detection view", "dataset=coco"],
    ),
    "option": (["-m", "task=coco_retinanet"], ["-m", "task=coco_retinanet"]),
    "key": (["task=coco_retinanet", "dataset.rot=."], ["dataset.rot", "dataset.root"]),
    "results": (["task=coco_retinanet", "results_dir=taken"], ["taken", "results_dir=PATH"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_command_that_cannot_be_used(case: str, inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    words, expected = WRONG[case]
    code, _, message = inside(*words)
    assert code == 2
    assert message.startswith("error: ")
    assert message.count("error: ") == 1
    assert "Traceback" not in message
    for word in expected:
        assert word in message


def test_a_wrong_word_ends_the_command_with_2(preflight: Preflight) -> None:
    began = time.monotonic()
    done = preflight("task=coco_retina")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no task=coco_retina.")
    assert time.monotonic() - began < 10  # torch is not imported: a second where nothing else runs


def test_only_light_imports_before_the_configuration_is_known() -> None:
    code = "import sys, pvt_bench.preflight; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "PIL", "numpy", "mlflow", "lightning"} & set(done.stdout.split())


def test_the_data_of_the_environment(
    inside: Inside, tree: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("detection").rename(tmp_path / "coco")
    (tmp_path / "coco" / VICTIM).unlink()
    monkeypatch.setenv("PVT_BENCH_DATA", str(tmp_path))
    code, shown, _ = inside("task=coco_retinanet", "mode=test")
    assert code == 1
    assert "PVT_BENCH_DATA is set" in shown
    assert VICTIM in shown
    assert report(tmp_path, "coco")["splits"] == ["val"]


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Path]:
    """Two thousand training images of the usual size."""
    root = write_imagenet_tree(tmp_path / "many")
    source = root / "source.JPEG"
    save_noise(source, (500, 375), quality=75)
    for number in range(2000):
        shutil.copyfile(source, root / "train/n02084071" / f"{number:04}.JPEG")
    yield root
    shutil.rmtree(root)


def test_progress_and_speed(preflight: Preflight, many: Path, tmp_path: Path) -> None:
    words = ("task=imagenet_classification", "dataset=imagenet", f"dataset.root={many}")
    done = preflight(*words)
    assert done.returncode == 0
    assert re.search(r"reading train 2012/2012 .*0:00:\d\d elapsed, ETA 0:00:00", done.stdout)
    content = report(tmp_path, "imagenet")
    assert content["images"] == 2017
    print(f"{content['images'] / content['seconds']:.0f} images a second")
    assert content["images"] / content["seconds"] > 20


def living(group: int) -> list[str]:
    """The processes of a group, but for those that have ended and wait to be reaped."""
    shown = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in shown.stdout.splitlines()]
    return [row[-1] for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


def test_an_interrupt(many: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group; all processes end, and the command says 130."""
    words = ("task=imagenet_classification", "dataset=imagenet", f"dataset.root={many}")
    running = subprocess.Popen(
        arguments(*words),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    assert any(line.startswith("looking at") for line in running.stdout)
    time.sleep(1.5)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    wait(lambda: not living(running.pid), "the end of all its processes")
    assert not list((tmp_path / "results").rglob("*.json"))
