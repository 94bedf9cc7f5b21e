"""What is suggested for a word that is unknown: what it is a slip or a part of, and no noise."""

import dataclasses

import pytest
from conftest import Command
from omegaconf import OmegaConf

from pvt_bench.config.choices import names_of
from pvt_bench.config.keys import all_keys
from pvt_bench.config.schema import Config
from pvt_bench.errors import near, nearest

KEYS = all_keys(OmegaConf.structured(Config))
GROUPS = ("schedule", "trainer", "launcher", "speed", "freeze")

# Slips, parts and longer names in use elsewhere, each with what is meant.
SLIPS = {
    "schedule.step": "schedule.steps",
    "schedule.epoch": "schedule.epochs",
    "schedule.max_epochs": "schedule.epochs",
    "schedule.total_epochs": "schedule.epochs",
    "schedule.batchsize": "schedule.batch_size",
    "schedule.batch_siz": "schedule.batch_size",
    "schedule.weight_deca": "schedule.weight_decay",
    "schedule.milestone": "schedule.milestones",
    "schedule.opt": "schedule.optimizer",
    "schedule.base_lr": "schedule.lr",
    "schedule.gradient_clip_val": "schedule.gradient_clip",
    "schedule.model_ema": "schedule.ema",
    "tracking.url": "tracking.uri",
    "trainer.precison": "trainer.precision",
    "trainer.acelerator": "trainer.accelerator",
    "trainer.device": "trainer.devices",
    "trainer.num_workers": "trainer.workers",
    "trainer.workers_per_gpu": "trainer.workers",
    "trainer.log_every_n_steps": "trainer.log_every",
    "launcher.partitions": "launcher.partition",
    "launcher.num_gpus": "launcher.gpus",
    "launcher.mem": "launcher.mem_gb",
    "launcher.time": "launcher.timeout_min",
}
# Names of Lightning, timm and mmdetection for what is not here, or has quite another name.
FOREIGN = (
    *("accumulate_grad_batches", "limit_train_batches", "check_val_every_n_epoch", "strategy"),
    *("learning_rate", "drop_path_rate", "smoothing", "val_interval", "fp16", "amp", "bs", "wd"),
    *("samples_per_gpu", "img_scale", "clip_grad", "early_stopping", "patience", "monitor"),
    *("logger", "callbacks", "pretrained", "lrate"),
)


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_finds_what_is_meant(slip: str) -> None:
    group = slip.partition(".")[0]
    assert near(slip, [key for key in KEYS if key.startswith(f"{group}.")])[0] == SLIPS[slip]


@pytest.mark.parametrize("word", FOREIGN)
def test_a_foreign_word_finds_nothing(word: str) -> None:
    top = [each.name for each in dataclasses.fields(Config)]
    assert near(word, top) == []
    for group in GROUPS:
        known = [key for key in KEYS if key.startswith(f"{group}.")]
        assert near(f"{group}.{word}", known) == []
        assert nearest(f"{group}.{word}", known).startswith(f"Choose one of: {group}.")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("pvt_smal", "pvt_small"), ("PVT_Small", "pvt_small"), ("resnet-50", "resnet50")],
)
def test_a_model_with_a_slip(word: str, meant: str) -> None:
    assert near(word, names_of("model", []))[0] == meant


RUN = ("model=pvt_small", "task=coco_retinanet")
SAID = {
    "lr=1": "There is no key lr. Did you mean schedule.lr?\n",
    "+lr=1": "There is no key lr. Did you mean schedule.lr?\n",
    "depths=[1,1,1,1]": "There is no key depths. Did you mean model.depths?\n",
    "max_epochs=3": "There is no key max_epochs. Did you mean schedule.epochs?\n",
    "trainer.batch_size=4": "Did you mean schedule.batch_size or speed.batch_size?\n",
    "trainer.accumulate_grad_batches=2": "python -m pvt_bench.options trainer explains them.\n",
    "accumulate_grad_batches=2": "python -m pvt_bench.options explains them.\n",
    "dataset=cocoo": "Did you mean coco? python -m pvt_bench --help dataset lists all choices.\n",
    "model=convnext_tiny": "Any other network of timm: model=timm model.name=NAME\n",
    "sedd": "Unknown word sedd: settings are KEY=VALUE",
    "--modle": "Unknown option --modle.",
}


@pytest.mark.parametrize("word", SAID)
def test_what_the_command_says(word: str, command: Command) -> None:
    done = command(*RUN, word, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert SAID[word] in done.stderr


def test_a_bare_command_shows_the_first_one_to_run(command: Command) -> None:
    done = command(timeout=60)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.endswith("python -m pvt_bench model=pvt_small task=coco_retinanet")
    assert "python -m pvt_bench --help model" in second
