"""What makes two runs the same run: all that can change the result, and nothing else."""

import copy
import json
import subprocess
import sys
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pvt_bench import records
from pvt_bench.config import schema
from pvt_bench.config.command_line import compose_cells
from pvt_bench.config.folders import config_dir
from pvt_bench.config.schema import Config, Mode, plain
from pvt_bench.identity import (
    ABSENT,
    ROLES,
    counts,
    first_identity,
    flatten,
    identity,
    of_other_view,
)

SETTINGS: dict[str, Any] = {
    "seed": 0,
    "weights": None,
    "results_dir": "results",
    "model": {"name": "pvt_small", "sr_ratios": [8, 4, 2, 1], "drop_path": 0.1},
    "dataset": {"_target_": "pvt_bench.datasets.coco.Coco", "name": "coco", "root": "/data"},
    "schedule": {"lr": 1e-4, "gradient_clip": None, "epochs": 12},
    "trainer": {"devices": 1, "precision": "32-true", "workers": 2},
}
DEFAULTS = {"seed": 0, "trainer.precision": "32-true", "schedule.gradient_clip": None}
NEVER = [key for key, each in ROLES.items() if not each.modes]
HERE = identity(SETTINGS, {}, DEFAULTS)


def changed(key: str, value: object) -> dict[str, Any]:
    settings = copy.deepcopy(SETTINGS)
    *parents, last = key.split(".")
    node = settings
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return settings


def test_order_and_spelling_do_not_count() -> None:
    backwards = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(SETTINGS.items())
    }
    assert list(backwards) != list(SETTINGS)
    assert identity(backwards, {}, DEFAULTS) == HERE
    assert identity(changed("schedule.epochs", 12.0), {}, DEFAULTS) == HERE
    assert identity(changed("model.sr_ratios", (8, 4, 2, 1)), {}, DEFAULTS) == HERE


@pytest.mark.parametrize("key", NEVER)
def test_what_cannot_change_the_result_does_not_count(key: str) -> None:
    assert identity(changed(key, "other"), {}, DEFAULTS) == HERE
    assert identity(changed(key, {"below": 1}), {}, DEFAULTS) == HERE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("model.sr_ratios", [4, 8, 2, 1]),
        ("model.drop_path", 0.1000001),
        ("dataset.name", "mine"),
        ("dataset._target_", "pvt_bench.datasets.coco.Other"),
        ("dataset._target_", "other.datasets.coco.Coco"),
        ("schedule.gradient_clip", 1),
        ("schedule.epochs", "12"),
        ("schedule.ema", None),  # no default says that this is none
        ("trainer.precision", "bf16-mixed"),
        ("removed_since", True),
    ],
)
def test_everything_else_counts(key: str, value: object) -> None:
    assert identity(changed(key, value), {}, DEFAULTS) != HERE


def test_a_new_option_at_its_default_changes_nothing() -> None:
    for key in ("trainer.accumulate", "dataset.crop", "model.norm", "task.network.levels"):
        assert identity(changed(key, [1, 2]), {}, {**DEFAULTS, key: (1, 2.0)}) == HERE
        assert identity(changed(key, [1, 3]), {}, {**DEFAULTS, key: (1, 2.0)}) != HERE


def test_a_default_counts_the_same_typed_and_left_out() -> None:
    settings = copy.deepcopy(SETTINGS)
    del settings["schedule"]["gradient_clip"], settings["trainer"]["precision"]
    assert identity(settings, {}, DEFAULTS) == HERE


def test_a_class_of_ours_may_move() -> None:
    moved = changed("dataset._target_", "pvt_bench.datasets.coco.reader.Coco")
    assert identity(moved, {}, DEFAULTS) == HERE


def test_weights_count_by_content() -> None:
    here, there = changed("weights", "/a.safetensors"), changed("weights", "/b.safetensors")
    assert identity(here, {"weights": "aa"}, {}) == identity(there, {"weights": "aa"}, {})
    assert identity(here, {"weights": "aa"}, {}) != identity(here, {"weights": "bb"}, {})
    assert identity(here, {"weights": "aa"}, {}) != identity(SETTINGS, {}, {})
    with pytest.raises(ValueError, match="weights"):
        identity(here, {}, {})


def test_it_is_the_same_in_every_process() -> None:
    code = (
        "import sys, json; from pvt_bench.identity import identity;"
        "print(identity(json.loads(sys.argv[1]), {}, json.loads(sys.argv[2])))"
    )
    words = [json.dumps(SETTINGS), json.dumps(DEFAULTS)]
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == HERE


def test_every_setting_has_a_role() -> None:
    settings = plain(OmegaConf.structured(Config))
    for key in settings:
        assert key in ROLES, f"{key}: say in ROLES which runs it is a part of"
    for key in ROLES:
        group, dot, name = key.partition(".")
        if dot and isinstance(settings.get(group), dict):
            assert name in settings[group], f"there is no {key} any more"


def test_a_key_of_before_stands_for_what_all_runs_did() -> None:
    words = ["model=resnet18", "task=coco_detr", "dataset=coco", "dataset.root=/data"]
    config = compose_cells(words)[0].config
    defaults = records.code_defaults(config)
    for key, value in ABSENT.items():
        assert defaults[key] == value


WORDS = ("model=pvt_tiny", "task=coco_retinanet", "dataset=digits")


@pytest.fixture(scope="module")
def run() -> Any:
    return compose_cells(WORDS)[0].config


def settings_and_identity(config: Any) -> tuple[dict[str, Any], str]:
    keys = records.read_keys(config)
    return keys, identity(keys, {}, records.code_defaults(config))


@pytest.mark.parametrize("mode", Mode)
def test_each_key_that_the_mode_reads_makes_another_run(mode: Mode, run: Any) -> None:
    run = copy.deepcopy(run)
    run.mode = mode
    keys, whole = settings_and_identity(run)
    tried = 0
    for key, value in flatten(keys):
        if key.endswith("weights"):
            continue
        other = OmegaConf.create(copy.deepcopy(keys))
        OmegaConf.update(other, key, _another(value), force_add=True)
        found = identity(plain(other), {}, records.code_defaults(run))
        assert (found != whole) == counts(key), key
        tried += 1
    assert tried > 20


def test_a_new_field_with_a_default_leaves_it_alone(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = settings_and_identity(run)
    trainer = make_dataclass("Trainer", [("compile", bool, False)], bases=(schema.Trainer,))
    wider = make_dataclass(
        "Config", [("trainer", trainer, field(default_factory=trainer))], bases=(Config,)
    )
    monkeypatch.setattr(records, "Config", wider)
    records._schema_defaults.cache_clear()
    config = OmegaConf.merge(OmegaConf.structured(wider), plain(run))
    keys, after = settings_and_identity(config)
    assert keys["trainer"]["compile"] is False
    assert after == before
    config.trainer.compile = True
    assert settings_and_identity(config)[1] != before
    records._schema_defaults.cache_clear()


def test_an_option_that_is_left_out_is_that_of_the_variant_not_of_its_class() -> None:
    def found(*words: str) -> str:
        given = ["model=timm", "model.name=pvt_small_wide", "task=imagenet_classification"]
        return settings_and_identity(compose_cells([*given, *words])[0].config)[1]

    assert found("+model.channels=[89,178,445,712]") == found()
    assert found("+model.channels=[64,128,320,512]") != found()


def test_a_comment_leaves_it_alone(tmp_path: Path, run: Any) -> None:
    file = config_dir() / "model" / "pvt_tiny.yaml"
    commented = tmp_path / "model.yaml"
    commented.write_text(f"# other words\n{file.read_text()}# and more\n")
    config = copy.deepcopy(run)
    config.model = OmegaConf.load(commented)
    assert settings_and_identity(config) == settings_and_identity(run)


def test_version_one_is_computed_as_it_was() -> None:
    """The figure was computed by the code of version 1."""
    settings = {
        "seed": 0,
        "model": {"name": "a", "drop_path": 1.0},
        "dataset": {"root": "/x", "exif": "apply"},
        "trainer": {"devices": 4, "precision": "32-true"},
    }
    assert first_identity(settings, {"dataset.val": "ab"}) == "3dc2cfa3c1"


def _another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, 7]
    return f"{value}x"


def test_a_run_lists_no_settings_of_views_that_its_task_does_not_read() -> None:
    listed = records.params(compose_cells(["model=pvt_tiny", "task=coco_retinanet"])[0].config)
    assert "dataset.detection.flip" in listed
    assert not [key for key in listed if key.startswith(("dataset.class", "dataset.segm"))]
    assert of_other_view("dataset.detection.flip", "classification")
    assert not of_other_view("dataset.flip", "classification")
