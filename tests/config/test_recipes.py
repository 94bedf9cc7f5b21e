"""Recipes: the rules of `conf/recipes.yaml` give a model what the papers set for it in a task."""

from collections.abc import Iterator

import pytest
import timm
from omegaconf import DictConfig, OmegaConf

from pvt_bench.backbones import timm_models  # noqa: F401, registers ours with timm
from pvt_bench.config.choices import own_dataset
from pvt_bench.config.command_line import compose_cells, first_lines
from pvt_bench.config.folders import config_dir
from pvt_bench.config.recipes import add_recipe, find_recipes, recipe_table

ALL = ("always", "on_own_data")
FROZEN = {"freeze.stages": 1, "freeze.batch_norm": True}


def shipped(group: str) -> set[str]:
    return {path.stem for path in config_dir().glob(f"{group}/*.yaml")}


def rules() -> Iterator[tuple[str, str, list[str]]]:
    """Each task and model that a rule names, with the settings of the rule."""
    for rule in recipe_table()["rules"]:
        for task in rule["tasks"]:
            for model in rule["models"]:
                yield task, model, [rule[column] for column in ALL if column in rule]


def composed(*words: str) -> DictConfig:
    (cell,) = compose_cells(words)
    return cell.config


# Task, model and dataset, and what is published for them.
PUBLISHED = {
    ("coco_retinanet", "resnet50", "coco"): {
        **FROZEN,
        "schedule.optimizer": "sgd",
        "schedule.lr": 0.02,
        "schedule.batch_size": 16,
        "schedule.weight_decay": 1e-4,
    },
    ("coco_retinanet", "resnet50", "digits"): {**FROZEN, "schedule.optimizer": "adamw"},
    ("coco_retinanet", "resnet152", "coco"): {"freeze.stages": 0, "schedule.optimizer": "adamw"},
    ("coco_retinanet", "pvt_v2_b5", "coco"): {
        "schedule.batch_size": 8,
        "schedule.reference_batch": 8,
        "schedule.lr": 7.142857e-5,
    },
    ("coco_mask_rcnn", "pvt_large", "coco"): {
        "schedule.batch_size": 8,
        "schedule.lr": 1.428571e-4,
        "freeze.stages": 0,
    },
    ("coco_mask_rcnn", "pvt_medium", "coco"): {"schedule.batch_size": 16, "schedule.lr": 2e-4},
    ("coco_detr", "resnet50", "coco"): {**FROZEN, "schedule.optimizer": "adamw"},
    ("ade20k_semantic_fpn", "resnet101", "ade20k"): {
        "model.stem_type": "deep",
        "model.stem_width": 32,
        "schedule.optimizer": "sgd",
        "schedule.weight_decay": 5e-4,
        "freeze.stages": 0,
    },
    ("ade20k_semantic_fpn", "resnext101_32x4d", "ade20k"): {
        "model.stem_type": None,
        "schedule.optimizer": "sgd",
    },
    ("ade20k_semantic_fpn", "pvt_large", "digits"): {"model.drop_path": 0.1},
    ("imagenet_classification", "pvt_large", "imagenet"): {
        "model.drop_path": 0.3,
        "schedule.gradient_clip": 1.0,
    },
    ("imagenet_classification", "pvt_small", "imagenet"): {
        "model.drop_path": 0.1,
        "schedule.gradient_clip": None,
    },
    ("imagenet_classification", "inception_v3", "imagenet"): {
        "task.protocol.size": [299, 299],
        "dataset.size": 299,
        "dataset.test_resize": 342,
    },
}


@pytest.mark.parametrize("pair", PUBLISHED, ids="-".join)
def test_what_is_published(pair: tuple[str, str, str]) -> None:
    task, model, dataset = pair
    config = composed(f"task={task}", f"model={model}", f"dataset={dataset}")
    assert {key: OmegaConf.select(config, key) for key in PUBLISHED[pair]} == PUBLISHED[pair]


def test_every_rule_is_of_shipped_tasks_and_models_and_every_setting_is_used() -> None:
    assert {task for task, _, _ in rules()} <= shipped("task")
    assert {model for _, model, _ in rules()} <= shipped("model")
    assert {name for _, _, names in rules() for name in names} == set(recipe_table()["settings"])


def test_no_rule_says_what_another_one_does() -> None:
    pairs = [(task, model, name) for task, model, names in rules() for name in names]
    assert len(pairs) == len(set(pairs))


def test_a_model_of_timm_is_the_shipped_one_of_the_same_name() -> None:
    """So that no other names of timm's need to stand in the table."""
    for model in {model for _, model, _ in rules()}:
        assert timm.is_model(model)
    name = "resnet50.a1_in1k"  # with the name of its weights
    for dataset in ("coco", "digits"):
        words = ["task=coco_retinanet", f"dataset={dataset}"]
        ours = composed("model=resnet50", *words)
        of_timm = composed("model=timm", f"model.name={name}", *words)
        assert (of_timm.freeze, of_timm.schedule) == (ours.freeze, ours.schedule)


@pytest.mark.parametrize(
    ("word", "stages", "optimizer"),
    [
        ("seed=0", 1, "sgd"),
        ("~recipe", 0, "sgd"),
        ("~recipe_on", 1, "adamw"),
        ("recipe=null", 0, "adamw"),
        ("recipe=frozen_resnet", 1, "adamw"),
        ("recipe=[coco_resnet_sgd,deep_stem]", 0, "sgd"),
        ("freeze.stages=3", 3, "sgd"),
    ],
)
def test_a_recipe_is_switched_off_or_chosen(word: str, stages: int, optimizer: str) -> None:
    config = composed("model=resnet50", "task=coco_retinanet", "dataset=coco", word)
    assert (config.freeze.stages, config.schedule.optimizer) == (stages, optimizer)


def test_a_sweep_over_recipes() -> None:
    words = ["-m", "model=resnet50", "task=coco_retinanet", "recipe=null,frozen_resnet"]
    assert [cell.config.freeze.stages for cell in compose_cells(words)] == [0, 1]


def test_the_recipe_is_that_of_what_an_experiment_chooses() -> None:
    assert add_recipe(["table=coco_retinanet", "model=resnet50"])[0] == "recipe=[frozen_resnet]"
    assert add_recipe(["sweep=seeds"]) == ["sweep=seeds"]


def test_the_dataset_of_a_task_is_that_of_its_name() -> None:
    """As in records from before the tasks named it."""
    for path in config_dir().glob("task/*.yaml"):
        assert own_dataset(path.stem, None) == OmegaConf.load(path)["dataset"]
    assert own_dataset("mine", "flowers") == "flowers"


def test_a_training_says_which_recipe_it_uses() -> None:
    words = ["model=resnet50", "task=coco_retinanet"]
    first, second = first_lines(composed(*words), words).splitlines()
    assert first.startswith("dataset: digits")
    assert second.startswith("recipe: stem, first stage and batch norms frozen")
    assert "(frozen_resnet; recipe=null trains without)" in second
    assert first_lines(composed(*words), [*words, "recipe=null"]).endswith("none (as typed)")
    assert "(~recipe is typed)" in first_lines(composed(*words), [*words, "~recipe"])
    words = ["model=pvt_small", "task=coco_retinanet"]
    assert "none is published for pvt_small" in first_lines(composed(*words), words)
    words = [*words, "mode=cost"]
    assert "recipe" not in first_lines(composed(*words), words)


def test_own_data_adds_to_what_is_always_set() -> None:
    assert find_recipes("coco_retinanet", "resnet50", ALL) == ["frozen_resnet", "coco_resnet_sgd"]
    assert find_recipes("coco_retinanet", "resnet50", ALL[:1]) == ["frozen_resnet"]
    assert find_recipes("coco_retinanet", "resnet34", ALL) == []
