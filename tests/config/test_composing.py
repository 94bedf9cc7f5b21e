"""What the command line becomes, without running it."""

import shlex

import pytest
from omegaconf import DictConfig

from pvt_bench import names
from pvt_bench.config.command_line import (
    Composed,
    add_dataset,
    compose_cells,
    compose_data,
    swept_keys,
    why_dataset,
)
from pvt_bench.config.folders import config_dir
from pvt_bench.config.keys import check_targets
from pvt_bench.errors import InputError
from pvt_bench.identity import read_keys


def composed(*words: str) -> DictConfig:
    (cell,) = compose_cells(["task=coco_retinanet", *words])
    return cell.config


def test_the_published_1x_recipe() -> None:
    """Section 5.2 of arXiv 2102.12122 and its released configuration."""
    schedule = composed("model=pvt_small", "dataset=coco").schedule
    assert (schedule.epochs, schedule.steps, schedule.batch_size) == (12, None, 16)
    assert (schedule.optimizer, schedule.lr, schedule.weight_decay) == ("adamw", 1e-4, 1e-4)
    assert (schedule.warmup_steps, schedule.warmup_ratio) == (500, 0.001)
    assert (schedule.milestones, schedule.gamma, schedule.decay) == ([8, 11], 0.1, "step")
    dataset = composed("model=pvt_small", "dataset=coco").dataset
    assert (dataset.shorter_side, dataset.longer_side, dataset.flip) == (800, 1333, 0.5)


def test_recipes_belong_to_a_pair_and_to_its_data() -> None:
    for dataset, optimizer in (("coco", "sgd"), ("digits", "adamw")):
        resnet = composed("model=resnet50", f"dataset={dataset}")
        assert (resnet.freeze.stages, resnet.freeze.batch_norm) == (1, True)
        assert resnet.schedule.optimizer == optimizer
        assert composed("model=pvt_small", f"dataset={dataset}").freeze.stages == 0


@pytest.mark.parametrize(
    ("typed", "data", "expected"),
    [
        (["task=coco_retinanet"], "/data", ["dataset=coco", "task=coco_retinanet"]),
        (["task=ade20k_semantic_fpn"], "/data", ["dataset=ade20k", "task=ade20k_semantic_fpn"]),
        (["task=coco_retinanet"], "", ["task=coco_retinanet"]),
        (["task=a_b", "dataset=digits"], "/data", ["task=a_b", "dataset=digits"]),
        (["-m", "task=coco_a,imagenet_b"], "/data", ["-m", "task=coco_a,imagenet_b"]),
    ],
)
def test_the_data_of_the_environment(typed: list[str], data: str, expected: list[str]) -> None:
    assert add_dataset(typed, {"PVT_BENCH_DATA": data}) == expected


def datasets(cells: list[Composed]) -> list[tuple[str, str]]:
    return [(cell.config.task.name, cell.config.dataset.name) for cell in cells]


def test_each_cell_takes_the_data_of_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVT_BENCH_DATA", "/data")
    words = ("-m", "model=lenet5", "task=coco_detr,imagenet_classification")
    both = [("coco_detr", "coco"), ("imagenet_classification", "imagenet")]
    assert datasets(compose_cells(words)) == both
    assert {name for _, name in datasets(compose_cells([*words, "dataset=digits"]))} == {"digits"}
    # A table that sets several tasks, and a study whose task is typed anew.
    table = datasets(compose_cells(["table=pvt_v2", "model=pvt_v2_b0"]))
    assert len(table) == 3
    assert all(task.startswith(name) for task, name in table)
    study = compose_cells(["sweep=seeds", "task=ade20k_trans2seg"])
    assert set(datasets(study)) == {("ade20k_trans2seg", "ade20k")}
    assert why_dataset("ade20k", None, ["sweep=seeds"]).startswith("dataset: ade20k (PVT_BENCH_DAT")


def test_preflight_looks_at_one_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVT_BENCH_DATA", "/data")
    assert compose_data(["table=imagenet"]).dataset.name == "imagenet"
    assert compose_data(["task=coco_detr", "seed=0,1"]).dataset.name == "coco"
    with pytest.raises(InputError, match="one of task=coco_detr, task=ade20k_trans2seg"):
        compose_data(["task=coco_detr,ade20k_trans2seg"])


# Words that nothing reads, or that are of a wrong type, and what the message must say.
UNREAD = {
    "+trainer.precison=bf16-mixed": ["trainer.precison", "mean trainer.precision?"],
    "+schedule.gradient_accumulation=8": ["schedule.gradient_accumulation", "gradient_clip"],
    "+trainer.max_epochs=3": ["trainer.max_epochs", "trainer.devices"],
    "+tracking.url=x": ["tracking.url", "mean tracking.uri?"],
    "+sed=1": ["no key sed", "mean seed"],
    "++task.network.num_classes=3": ["task.network.num_classes", "the run decides it"],
    "+task.network.nms_iuo=0.5": ["task.network.nms_iuo", "mean task.network.nms_iou?"],
    "+task.module.flip=true": ["task.module.flip"],
    "+task.protocol.sise=[1,1]": ["task.protocol.sise", "mean task.protocol.size?"],
    "+task.view_options={mask:true}": ["task.view_options.mask", "task.view_options.masks"],
    "+model.num_classes=3": ["model.num_classes", "the run decides it"],
    "+dataset.num_classes=3": ["dataset.num_classes", "dataset.shorter_side"],
    "~cost": ["~cost", "cost=..."],
    "~dataset.root": ["~dataset.root", "dataset.root=..."],
    "~schedule.lr": ["~schedule.lr", "schedule.lr=..."],
    "dataset=null": ["dataset=null", "dataset=NAME"],
    "recipe=": ["recipe=", "recipe=null"],
    "hydra.run.dir=out": ["hydra.run.dir=out", "results_dir=PATH"],
    "hydra/launcher=joblib": ["hydra/launcher=joblib", "launcher=local"],
    "hydra.job.chdir=true": ["hydra.job.chdir=true", "Leave it out"],
    "dataset.flip=often": ["dataset.flip=often", "a number"],
    "task.network.nms_iou=high": ["task.network.nms_iou=high", "a number"],
    "task.network.detections=1.5": ["task.network.detections=1.5", "a whole number"],
    "dataset.shorter_side=[640,large]": ["dataset.shorter_side", "large", "a whole number"],
    "task.protocol.size=[800]": ["task.protocol.size=[800]", "a list of 2"],
    "task.view=masks": ["task.view=masks", "detection"],
    "task.network._target_=pvt_bench.networks.Nothing": ["networks.Nothing", "imported"],
}


@pytest.mark.parametrize("word", UNREAD)
def test_a_key_that_nothing_reads_is_refused(word: str) -> None:
    words = ["model=resnet18", "task=coco_retinanet", "dataset=coco", word]
    with pytest.raises(InputError) as refused:
        check_targets(compose_cells(words)[0].config)
    for expected in UNREAD[word]:
        assert expected in str(refused.value)


def test_the_options_of_a_view_are_those_of_its_reader() -> None:
    words = ["model=resnet18", "task=coco_retinanet"]
    check_targets(compose_cells([*words, "+dataset.detection.on_damaged=skip"])[0].config)
    with pytest.raises(InputError, match=r"no key dataset.detection.flop.*dataset.detection.flip"):
        check_targets(compose_cells([*words, "+dataset.detection.flop=0.5"])[0].config)


@pytest.mark.parametrize(
    "word",
    [
        *(
            "+launcher.additional_parameters.mail-user=me",
            "~recipe",
            "hydra.searchpath=[pkg://pvt_bench]",
        ),
        *("+model.stem_width=32", "+task.view_options={masks:true}", "task.network.nms_iou=1"),
    ],
)
def test_what_is_read_is_taken(word: str) -> None:
    words = ["model=resnet18", "task=coco_retinanet", "launcher=slurm", word]
    check_targets(compose_cells(words)[0].config)


@pytest.mark.parametrize("task", sorted(path.stem for path in config_dir().glob("task/*.yaml")))
def test_every_key_of_the_parts_is_read(task: str) -> None:
    for dataset in ("digits", task.partition("_")[0]):
        check_targets(composed(f"task={task}", f"dataset={dataset}"))


@pytest.mark.parametrize(
    "value",
    ["epoch=3.ckpt", "/my (photos)/a", "[a].pth", "a,b", 'say "hi"', 'a"b\\', 'a\\"b', "#1?", "{x"],
)
def test_a_value_with_signs_of_the_grammar_is_told_how_to_be_typed(value: str) -> None:
    """What the message says to type is what was meant, through a shell and through Hydra."""
    words = ["model=resnet18", "task=coco_retinanet"]
    with pytest.raises(InputError) as refused:
        compose_cells([*words, f"weights={value}"])
    shell = str(refused.value).rpartition(": " if value[0] in "[{" or "," in value else "Use ")[2]
    (word,) = shlex.split(shell)
    assert compose_cells([*words, word])[0].config.weights == value


def test_a_reference_in_a_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVT_BENCH_RESULTS", "/a/${b}")
    with pytest.raises(InputError, match=r"results_dir=/a/\$\{b\}"):
        composed()


def test_the_first_line_says_why() -> None:
    assert "built in, the default" in why_dataset("digits", "results/digits", [])
    assert "PVT_BENCH_DATA is set" in why_dataset("coco", None, ["task=coco_retinanet"])
    assert "as typed" in why_dataset("coco", "/data/coco", ["dataset=coco"])


@pytest.mark.parametrize(
    ("words", "name", "label"),
    [
        ([], "pvt_small seed0", "coco_retinanet/digits/pvt_small-seed0"),
        (
            ["model.sr_ratios=[4,2,1,1]", "seed=3"],
            "pvt_small sr_ratios=[4,2,1,1] seed3",
            "coco_retinanet/digits/pvt_small_sr_ratios_4_2_1_1-seed3",
        ),
        (["mode=cost"], "pvt_small", "coco_retinanet/cost/pvt_small"),
    ],
)
def test_a_run_is_named_by_what_it_is(words: list[str], name: str, label: str) -> None:
    config = composed("model=pvt_small", *words)
    assert names.run_name(config) == name
    assert names.label(config) == label


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "pvt_small seed0"),
        ("schedule.steps=20", "pvt_small seed0 steps=20"),
        ("schedule.steps=30 seed=2", "pvt_small seed2 steps=30"),
        ("schedule.steps=560 trainer.workers=3", "pvt_small seed0"),
        ("mode=cost schedule.steps=20", "pvt_small"),
        ("mode=test weights=/a/best.safetensors", "pvt_small test weights=best"),
        ("dataset=coco", "pvt_small coco seed0"),
        (
            "dataset=coco schedule=coco_retinanet_640 dataset.flip=0.1",
            "pvt_small coco 640 seed0 flip=0.1",
        ),
        ("trainer.precision=bf16-mixed", "pvt_small seed0 precision=bf16-mixed"),
        (
            "model.depths=[1,1,1,1] model.channels=[16,32,40,64] model.heads=[1,2,5,8] "
            "model.mlp_ratios=[2,2,2,2] model.drop_path=0.2 schedule.steps=20 schedule.lr=1e-4",
            "pvt_small seed0 depths=[1,1,1,1] channels=[16,32,40,64] mlp_ratios=[2,2,2,2] "
            "drop_path=0.2 +2",
        ),
    ],
)
def test_a_name_in_mlflow_tells_what_differs_from_the_files(words: str, name: str) -> None:
    assert names.display_name(composed("model=pvt_small", *words.split())) == name


def test_a_recipe_is_no_difference_but_its_absence_is() -> None:
    with_it, without = (composed("model=resnet50", *words) for words in ([], ["recipe=null"]))
    assert names.display_name(with_it) == "resnet50 seed0"
    assert names.display_name(without) == "resnet50 seed0 stages=0 batch_norm=False"


def test_a_cell_names_what_was_swept_where_it_is_the_default() -> None:
    words = ("model=pvt_small", "task=coco_retinanet", "schedule.steps=560,20", "seed=0,1")
    cells = compose_cells(["-m", *words])
    swept = swept_keys([cell.overrides for cell in cells])
    assert [names.display_name(cell.config, swept) for cell in cells] == [
        "pvt_small steps=560 seed0",
        "pvt_small steps=560 seed1",
        "pvt_small steps=20 seed0",
        "pvt_small steps=20 seed1",
    ]


def test_what_a_mode_does_not_read_does_not_make_another_run() -> None:
    costs = [
        read_keys(composed("model=pvt_small", "mode=cost", *words))
        for words in ([], ["seed=3"], ["dataset=coco"], ["model.weights=imagenet"])
    ]
    assert all(cost == costs[0] for cost in costs)
    assert read_keys(composed("model=pvt_tiny", "mode=cost")) != costs[0]
