"""A configuration calls the classes of pvt-bench and of named packages, and nothing else."""

import json
import sys
from pathlib import Path

import pytest
from conftest import Command
from sweeping import COST, start
from test_bad_input import assert_refused

from pvt_bench.backbones.lenet import LeNet5
from pvt_bench.config.command_line import compose_cells
from pvt_bench.config.keys import check_targets
from pvt_bench.config.targets import build, find_target
from pvt_bench.errors import InputError
from pvt_bench.launching.cell import FROZEN, main

CLASSIFIER = "pvt_bench.networks.classifier.Classifier"
# What pvt-bench, or a package of the user's, imports or does beside its classes.
OTHERS = [
    "torch.load",
    "shutil.copy",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "pvt_bench.run.json.loads",
    "pvt_bench.launching.ranks.run_ranks",
    "pvt_bench.files.replace",
    "pvt_bench.networks.detr.torch.load",
    "pvt_bench.networks.detr:torch.load",
    "pvt_bench.networks.detr.nn.Linear",
    "pvt_bench.networks.detr.DETR.__class__",
    "pvt_bench.networks.detr.DETR.forward",
    "pvt_bench.datasets.digits.reader.write_digits",
    "pvt_bench.datasets.digits.reader.Path",
    "pvt_bench.tasks.detection.Detection.load_from_checkpoint",
    "pvt_bench.networks_of_others.Net",
    "my_models.shutil.copy",
    "my_models.copy",
    "my_models.Net.load_state_dict",
    "my_models.alias",
    "my_models_of_others.Net",
    "pvt_bench.networks",
    None,
    3,
]
SOURCE = """
import shutil
from functools import partial
from shutil import copy
from pvt_bench.networks.classifier import Classifier

alias = partial(copy, follow_symlinks=False)

class Net(Classifier):
    @classmethod
    def small(cls, backbone, num_classes, **options):
        return cls(backbone, num_classes, **options)

class Sounds:
    def __init__(self, **options):
        pass

def make(backbone, num_classes, **options):
    return Net(backbone, num_classes, **options)
"""


@pytest.fixture
def my_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's, named as one."""
    (tmp_path / "my_models.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PVT_BENCH_PACKAGES", "lab.models, my_models")
    monkeypatch.delitem(sys.modules, "my_models", raising=False)


@pytest.mark.usefixtures("my_models")
@pytest.mark.parametrize("name", OTHERS)
def test_what_nobody_offers_is_refused(name: object) -> None:
    with pytest.raises(InputError, match=r"PVT_BENCH_PACKAGES=my_package"):
        find_target("task.network", name)


@pytest.mark.usefixtures("my_models")
@pytest.mark.parametrize("name", ["Net", "make", "Net.small", "Classifier"])
def test_a_package_of_the_users_offers_what_it_defines(name: str) -> None:
    words = ["model=lenet5", *COST, f"task.network._target_=my_models.{name}"]
    config = compose_cells(words)[0].config
    check_targets(config)
    network = build("task.network", config.task.network, backbone=LeNet5(), num_classes=3)
    assert type(network).__name__ == ("Classifier" if name == "Classifier" else "Net")


def test_a_package_that_is_not_named_is_not_even_imported(
    my_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PVT_BENCH_PACKAGES")
    with pytest.raises(InputError, match="may not be called"):
        find_target("task.network", "my_models.Net")
    assert "my_models" not in sys.modules


@pytest.mark.parametrize(
    "word",
    [
        "+task.network.extra={_target_:shutil.copy,src:a,dst:b}",
        "+task.network.extra=[{_target_:shutil.copy}]",
        "+task.view_options={masks:{_target_:shutil.copy}}",
        "+model.extra._target_=shutil.copy",
        "+dataset.detection.flip={_target_:shutil.copy,_partial_:true}",
        "+task.network._partial_=true",
        "+task.network._args_=[a,b]",
        "+dataset._recursive_=false",
        "+task.module._convert_=all",
        "+launcher.additional_parameters._target_=shutil.copy",
    ],
)
def test_nothing_else_is_called(word: str) -> None:
    words = ["model=resnet18", "task=coco_retinanet", "launcher=slurm", word]
    with pytest.raises(InputError, match="_ cannot be used: a configuration calls what"):
        check_targets(compose_cells(words)[0].config)


@pytest.mark.usefixtures("my_models")
def test_a_dataset_without_the_view_is_refused() -> None:
    words = ["model=resnet18", "task=coco_retinanet", "dataset._target_=my_models.Sounds"]
    with pytest.raises(InputError, match=r"Sounds has no view detection\. Use dataset=NAME"):
        check_targets(compose_cells(words)[0].config)


def test_a_typed_call_is_refused_by_the_command(command: Command, tmp_path: Path) -> None:
    (tmp_path / "from").write_text("planted")
    done = command(
        *("model=lenet5", *COST, "task.network._target_=argparse.Namespace"),
        "+task.network.extra={_target_:shutil.copy,src:from,dst:to}",
    )
    assert_refused(done, ["task.network.extra._target_", "Leave it out"])
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("nested", [True, False])
def test_a_planted_configuration_calls_nothing(
    nested: bool, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies in results_dir may be anything: here a cell that was frozen is changed."""
    (state,) = start("model=lenet5", *COST, f"results_dir={results}")
    directory = results / state.cell.place
    frozen = json.loads((directory / FROZEN).read_text())
    copy = {"_target_": "shutil.copy", "src": str(directory / FROZEN), "dst": str(results / "to")}
    nest = {"_target_": "argparse.Namespace", "extra": copy}
    frozen["config"]["task"]["network"] = nest if nested else copy
    (directory / FROZEN).write_text(json.dumps(frozen))
    monkeypatch.setattr(sys, "argv", ["cell", str(directory)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    key = "task.network.extra._target_ cannot be used" if nested else "_target_=shutil.copy may not"
    assert key in capsys.readouterr().err
    assert not (results / "to").exists()
