"""Whatever is wrong with the input ends with exit code 2 and one message, through the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from coco_tree import write_coco_tree
from conftest import SMALL, Command, environment, type_in
from faulty_trees import write_dds
from safetensors.torch import save_file

# Most of them end before a store is opened; the others need not make one first.
pytestmark = pytest.mark.usefixtures("results")

RUN = ("model=pvt_small", "task=coco_retinanet")
TRAIN = (*RUN, *SMALL, "schedule.steps=2", "schedule.batch_size=2", "trainer=cpu")

DIGIT = ("task=imagenet_classification", "schedule.steps=1")

# Words typed, and what the message must say: what is wrong, what was expected, what to type.
WRONG_WORDS = {
    "model": (["model=pvt_smal", "task=coco_retinanet"], ["model=pvt_smal", "pvt_small"]),
    "no model": (["task=coco_retinanet"], ["model", "pvt_small"]),
    "no task": (["model=pvt_small"], ["task", "coco_retinanet"]),
    "task": (["model=pvt_small", "task=coco_retina"], ["task=coco_retina", "coco_retinanet"]),
    "dataset": ([*RUN, "dataset=digit"], ["dataset=digit", "digits"]),
    "key": ([*RUN, "schedule.step=3"], ["schedule.step", "schedule.steps"]),
    "model key": ([*RUN, "model.sr_ratio=[8,4,2,1]"], ["model.sr_ratio", "model.sr_ratios"]),
    "unread": ([*RUN, "+trainer.precison=x"], ["trainer.precison", "trainer.precision?"]),
    "unread by the network": (
        [*RUN, "++task.network.num_classes=3"],
        ["task.network.num_classes", "the run decides it"],
    ),
    "unread in a sweep": (
        ["-m", *RUN, "+task.network.nms=0.5,0.6"],
        ["2 of 2 cells cannot run", "nothing was queued", "task.network.nms_iou?"],
    ),
    "unread by timm": (
        ["-m", "model=resnet18", "task=coco_retinanet", "+model.stem=null,deep"],
        ["2 of 2 cells cannot run", "model.stem", "stem_type"],
    ),
    "taken away": ([*RUN, "~cost"], ["~cost", "Leave ~cost out"]),
    "hydra's own": ([*RUN, "hydra.run.dir=out"], ["hydra.run.dir=out", "results_dir=PATH"]),
    "quotes": ([*RUN, "weights=epoch=3.ckpt"], ["'weights=\"epoch=3.ckpt\"'"]),
    "option's type": (
        [*RUN, "dataset=coco", "dataset.root=.", "dataset.flip=often"],
        ["dataset.flip=often", "a number"],
    ),
    "type": ([*RUN, "seed=many"], ["seed", "many", "Integer"]),
    "mode": ([*RUN, "mode=cots"], ["mode", "cots", "cost"]),
    "syntax": ([*RUN, "model.depths=[1,2"], ["[1,2"]),
    "model type": ([*RUN, "model.depths=[2,2,two,2]"], ["model.depths", "two", "[3,4,6,3]"]),
    "length": ([*RUN, "model.sr_ratios=[8,4,2]"], ["model.sr_ratios", "[8, 4, 2]", "[8,4,2,1]"]),
    "ratio": ([*RUN, "model.sr_ratios=[8,4,0,1]"], ["model.sr_ratios", "[8,4,2,1]"]),
    "heads": ([*RUN, "model.heads=[1,2,3,8]"], ["model.heads", "320", "3"]),
    "attention": ([*RUN, "model.attention=flash"], ["model.attention", "flash", "fused"]),
    "gpu": ([*RUN, "trainer=gpu"], ["trainer=gpu", "trainer=cpu"]),
    "precision": ([*RUN, "trainer.precision=bf16"], ["trainer.precision=bf16", "bf16-mixed"]),
    "coco": ([*RUN, "dataset=coco"], ["PVT_BENCH_DATA", "dataset.root"]),
    "several gpus": ([*RUN, "trainer=ddp"], ["trainer=gpu or trainer=ddp", "trainer=cpu"]),
    "no folder": (
        [*RUN, "dataset=coco", "dataset.root=nowhere"],
        ["There is no folder", "nowhere", "dataset.root=PATH"],
    ),
    "coco tree": (
        [*RUN, "dataset=coco", "dataset.root=."],
        ["annotations/instances_train2017.json", "dataset.root"],
    ),
    "size of the protocol": (
        ["model=coat_lite_small", "task=coco_retinanet", "mode=cost"],
        ["800 x 1280", "task=coco_retinanet", "The nearest square that it takes is 224 x 224"],
    ),
    "size of the data": (
        ["model=tnt_s_patch16_224", *DIGIT],
        ["an image of 32 x 32", "dataset=digits (train)", "224 x 224"],
    ),
    "odd size": (
        ["model=deit_tiny_patch16_224", *DIGIT, "dataset.classification.size=30"],
        ["an image of 30 x 30", "dataset=digits (train)", "32 x 32"],
    ),
    "size in a sweep": (
        ["-m", "model=tnt_s_patch16_224", *DIGIT, "seed=0,1"],
        ["2 of 2 cells cannot run, and nothing was queued", "an image of 32 x 32"],
    ),
    "size to time": (
        ["model=coat_lite_small", *DIGIT, "mode=speed", "speed.size=[64,64]"],
        ["an image of 64 x 64", "speed.size", "224 x 224"],
    ),
    "weights": ([*TRAIN, "weights=none.ckpt"], ["weights=none.ckpt", "no such file"]),
    "model weights": ([*TRAIN, "model.weights=none.pth"], ["model.weights=none.pth", "no such"]),
    "size": ([*RUN, "mode=speed", "speed.size=[800]"], ["speed.size=[800]", "[800,1280]"]),
    "nothing to test": ([*RUN, "mode=test"], ["mode=test", "weights=PATH"]),
    "file store": (
        [*RUN, "tracking.uri=file:///tmp/mlruns"],
        ["tracking.uri=file:///tmp/mlruns", "sqlite:///"],
    ),
    "batch": ([*TRAIN, "schedule.batch_size=1000"], ["schedule.batch_size", "981"]),
    "length of the training": (
        [*RUN, "schedule.epochs=2"],
        ["schedule.epochs=2", "schedule.steps=560"],
    ),
}


def assert_refused(done: object, expected: list[str]) -> None:
    """Exit code 2; one message on standard error with all that is expected; no traceback."""
    message = done.stderr  # type: ignore[attr-defined]
    assert done.returncode == 2, message  # type: ignore[attr-defined]
    assert message.startswith("error: ")
    assert message.count("error: ") == 1
    assert "Traceback" not in message
    for words in expected:
        assert words in message


def assert_none_left_running(results: Path) -> None:
    """No record, and so no run in MLflow, still counts as running."""
    for status in results.glob("runs/*/*/*/status.json"):
        assert json.loads(status.read_text())["state"] != "running"
    if (results / "mlflow.db").exists():
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        assert {run.info.status for run in client.search_runs(ids)} <= {"FAILED"}


@pytest.mark.parametrize("case", WRONG_WORDS)
def test_a_wrong_word(case: str, command: Command, tmp_path: Path, digits: Path) -> None:
    words, expected = WRONG_WORDS[case]
    if "dataset=coco" not in words and "dataset=digit" not in words:
        words = [*words, f"dataset.root={digits}"]
    assert_refused(command(*words, timeout=60), expected)
    assert_none_left_running(tmp_path / "results")


def test_the_traceback_is_shown_when_asked_for(command: Command) -> None:
    done = command(*RUN, "model.sr_ratios=[8,4,2]", HYDRA_FULL_ERROR="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "InputError" in done.stderr


def test_a_results_directory_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    """A file stands in the way: permissions do not stop a superuser."""
    (tmp_path / "taken").write_text("")
    assert_refused(command(*RUN, "mode=cost", "results_dir=taken"), ["taken", "results_dir=PATH"])


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco_tree(tmp_path / "coco")


def train_on(command: Command, root: Path) -> object:
    return command(
        *TRAIN, "dataset=coco", f"dataset.root={root}", "schedule.epochs=null",
        "dataset.shorter_side=96", "dataset.longer_side=160",
    )  # fmt: skip


def test_a_truncated_json(command: Command, coco: Path, tmp_path: Path) -> None:
    path = coco / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text()[:-200])
    assert_refused(train_on(command, coco), [path.name])
    assert_none_left_running(tmp_path / "results")


def test_a_category_out_of_range(command: Command, coco: Path) -> None:
    path = coco / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["category_id"] = 12345
    path.write_text(json.dumps(document))
    number = document["annotations"][0]["id"]
    assert_refused(train_on(command, coco), ["12345", f"annotation {number}"])


def test_a_missing_image(command: Command, coco: Path) -> None:
    victim = sorted((coco / "train2017").iterdir())[0]
    victim.unlink()
    assert_refused(train_on(command, coco), [victim.name, "missing"])


def test_an_image_cut_short(command: Command, coco: Path, tmp_path: Path) -> None:
    for victim in (coco / "train2017").iterdir():
        victim.write_bytes(victim.read_bytes()[:400])
    assert_refused(train_on(command, coco), ["train2017"])
    assert_none_left_running(tmp_path / "results")


def test_images_that_cannot_be_decoded(command: Command, coco: Path, tmp_path: Path) -> None:
    for victim in (coco / "train2017").iterdir():
        write_dds(victim)
    assert_refused(train_on(command, coco), ["train2017", "Convert it to PNG or JPEG"])
    assert_none_left_running(tmp_path / "results")


@pytest.mark.parametrize("key", ["weights", "model.weights"])
def test_a_checkpoint_of_another_model(
    key: str, command: Command, digits: Path, tmp_path: Path
) -> None:
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    words = [*TRAIN, f"dataset.root={digits}", f"{key}=other.safetensors"]
    assert_refused(command(*words), ["other.safetensors", "stem.weight"])
    assert_none_left_running(tmp_path / "results")


@pytest.mark.parametrize("key", ["weights", "model.weights"])
def test_a_pickle_payload(key: str, command: Command, digits: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"state_dict": Payload()}, tmp_path / "payload.pth")
    words = [*TRAIN, f"dataset.root={digits}", f"{key}=payload.pth"]
    assert_refused(command(*words), ["payload.pth"])
    assert not (tmp_path / "owned").exists()
    assert_none_left_running(tmp_path / "results")


def test_a_pickled_module_comes_in_by_the_command_in_the_message(
    command: Command, digits: Path, tmp_path: Path
) -> None:
    network = timm.create_model("resnet18")
    torch.save({"model": network, "epoch": 3}, tmp_path / "whole.pth")
    words = ["model=resnet18", *TRAIN[1:2], "schedule.steps=1", "schedule.batch_size=1"]
    words += ["trainer=cpu", f"dataset.root={digits}"]
    refused = command(*words, "model.weights=whole.pth")
    assert_refused(refused, ["whole.pth holds code or objects", "whole_tensors.pth"])
    type_in(refused.stderr.splitlines()[-1], tmp_path)
    done = command(*words, "model.weights=whole_tensors.pth")
    assert done.returncode == 0, done.stderr
    assert "whole_tensors.pth (model): loaded 120 of 120 tensors" in done.stdout


def test_weights_with_nan(command: Command, digits: Path, tmp_path: Path) -> None:
    state = timm.create_model("resnet18").state_dict()
    torch.save({**state, "conv1.weight": state["conv1.weight"] / 0}, tmp_path / "nan.pth")
    words = ["model=resnet18", *TRAIN[1:2], "schedule.steps=1", f"dataset.root={digits}"]
    done = command(*words, "trainer=cpu", "model.weights=nan.pth")
    assert_refused(done, ["nan.pth has NaN or infinity in", "conv1.weight", "Use the path"])
    assert_none_left_running(tmp_path / "results")


# What is wrong whatever the network: told without importing torch, which takes seconds.
EARLY = {
    "weights": ["weights=none.ckpt"],
    "model weights": ["model.weights=none.pth"],
    "data": ["dataset=coco", "dataset.root=nowhere"],
    "no data": ["dataset=coco"],
    "results": ["results_dir=taken/results"],
    "store": ["tracking.uri=gopher://host"],
    "gpus": ["launcher.gpus=many"],
    "nodes": ["trainer.num_nodes=2"],
    "precision": ["trainer.precision=16"],
    "nothing to test": ["mode=test"],
    "a sweep": ["-m", "seed=0,1", "weights=none.ckpt"],
}


@pytest.mark.parametrize("case", EARLY)
def test_it_is_told_before_torch_is_imported(case: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code = (
        "import sys, pvt_bench.__main__ as command\n"
        "try: command.main()\n"
        "finally: print(sorted({'torch', 'mlflow', 'lightning'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *RUN, *EARLY[case]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert_refused(done, [EARLY[case][-1].partition("=")[2]])
    assert done.stdout == "[]\n"
    assert not (tmp_path / "results" / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_one_run_is_not_told_of_cells(command: Command) -> None:
    """Several GPUs are the launcher's work, as a sweep is."""
    done = command(*RUN, "trainer=ddp")
    assert_refused(done, ["trainer=gpu or trainer=ddp: torch finds no GPU", "Use trainer=cpu"])
    assert "cell" not in done.stderr
    by_launcher = command(*RUN, "mode=cost", "launcher=local", "trainer.precision=16")
    assert by_launcher.stderr.startswith("error: There is no trainer.precision=16.")
    late = command("model=pvt_small", "task=coco_retinanet", "launcher=local", "model.heads=[1,2]")
    assert_refused(late, ["model.heads"])
    assert "cell" not in late.stderr
