"""What the command line becomes, without running it."""

from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pvt_bench import describing
from pvt_bench.composing import add_dataset, why_dataset
from pvt_bench.config import config_dir, register


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def composed(*words: str) -> DictConfig:
    return compose("config", ["task=coco_retinanet", *words])


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
        (["task=coco_retinanet"], "/data", ["task=coco_retinanet", "dataset=coco"]),
        (["task=ade20k_semantic_fpn"], "/data", ["task=ade20k_semantic_fpn", "dataset=ade20k"]),
        (["task=coco_retinanet"], "", ["task=coco_retinanet"]),
        (["task=a_b", "dataset=digits"], "/data", ["task=a_b", "dataset=digits"]),
        (["-m", "task=coco_a,imagenet_b"], "/data", ["-m", "task=coco_a,imagenet_b"]),
    ],
)
def test_the_data_of_the_environment(typed: list[str], data: str, expected: list[str]) -> None:
    assert add_dataset(typed, {"PVT_BENCH_DATA": data}) == expected


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
    assert describing.run_name(config) == name
    assert describing.label(config) == label


def test_what_a_mode_does_not_read_does_not_make_another_run() -> None:
    costs = [
        describing.read_keys(composed("model=pvt_small", "mode=cost", *words))
        for words in ([], ["seed=3"], ["dataset=coco"], ["model.weights=imagenet"])
    ]
    assert all(cost == costs[0] for cost in costs)
    assert describing.read_keys(composed("model=pvt_tiny", "mode=cost")) != costs[0]
