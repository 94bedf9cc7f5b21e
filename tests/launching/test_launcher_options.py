"""GPUs with types, and what users type for `sbatch` beside the launcher's own keys."""

from typing import Any

import pytest
from conftest import Command

from pvt_bench.config.checks import check
from pvt_bench.config.command_line import compose_cells
from pvt_bench.config.launchers import Gpus, read_gpus
from pvt_bench.errors import InputError
from pvt_bench.launching.resources import count_typed, for_slurm

WORDS = ("model=lenet5", "task=imagenet_classification", "launcher=slurm")


def options(*words: str) -> dict[str, Any]:
    """What submitit is given; typed options without `launcher.additional_parameters`."""
    typed = [
        f"+launcher.additional_parameters.{word[1:]}" if word.startswith("@") else word
        for word in words
    ]
    (cell,) = compose_cells([*WORDS, *typed])
    check(cell.config)
    return for_slurm(cell.config, "name")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (None, None),
        (2, (2, "")),
        ("0", (0, "")),
        ("a100:2", (2, "a100")),
        ("a100-80g:08", (8, "a100-80g")),
    ],
)
def test_what_gpus_says(typed: int | str | None, expected: tuple[int, str] | None) -> None:
    assert read_gpus(typed) == (None if expected is None else Gpus(*expected))


@pytest.mark.parametrize("wrong", ["a100:", ":2", "a100:x", "a100:0", "two", "-1", "1.5", "a:b:2"])
def test_gpus_that_are_no_number(wrong: str) -> None:
    with pytest.raises(InputError, match=r"launcher.gpus=.* Use for example launcher.gpus=2 or"):
        options(f"launcher.gpus='{wrong}'")


def test_a_type_without_a_number_ends_the_command(command: Command) -> None:
    done = command(*WORDS[:2], "mode=cost", "launcher.gpus=a100:")
    assert done.returncode == 2, done.stderr
    assert "launcher.gpus=a100: must be the number of GPUs of a node" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("launcher", ["local", "in_process"])
def test_only_slurm_knows_types(launcher: str) -> None:
    with pytest.raises(InputError, match=r"Use launcher.gpus=2, or launcher=slurm"):
        options(f"launcher={launcher}", "launcher.gpus=a100:2")


@pytest.mark.parametrize(
    ("words", "gpus", "typed"),
    [
        (("trainer=gpu",), "1", {}),
        (("launcher.gpus=a100:2",), "a100:2", {}),
        (("launcher.gpus=0",), None, {}),
        (("trainer=gpu", "@gres=gpu:1"), None, {"gres": "gpu:1"}),
        (("trainer=gpu", "@gres='gpu:a100:1,nvme:10'"), None, {"gres": "gpu:a100:1,nvme:10"}),
        (("trainer=gpu", "@gres=nvme:10"), "1", {"gres": "nvme:10"}),
        (("trainer=gpu", "@gres=shard:4"), None, {"gres": "shard:4"}),
        (("launcher.gpus=4", "@gpus-per-node=4"), None, {"gpus_per_node": 4}),
        (("launcher.gpus=a100:4", "@gres=gpu:a100:4"), None, {"gres": "gpu:a100:4"}),
        (("trainer=ddp", "trainer.devices=2", "@gpus=2"), None, {"gpus": 2}),
        (("trainer=gpu", "@gpus_per_task=1"), None, {"gpus_per_task": 1}),
        (("launcher.mem_gb=64", "@mem=64G"), None, {"mem": "64G"}),
        (("@mem_per_gpu=8G",), None, {"mem_per_gpu": "8G"}),
        (("@cpus-per-gpu=8",), None, {"cpus_per_gpu": 8}),
        (("trainer=ddp", "trainer.devices=2", "launcher.gpus=2", "@ntasks=2"), "2", {"ntasks": 2}),
    ],
)
def test_what_is_typed_for_sbatch_is_what_is_sent(
    words: tuple[str, ...], gpus: str | None, typed: dict[str, Any]
) -> None:
    found = options(*words)
    assert found.get("gpus_per_node") == gpus
    assert found.get("additional_parameters", {}) == typed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("launcher.gpus=2", "@gres=gpu:4"), r"4 GPUs, and launcher.gpus=2 asks for 2. Use one"),
        (("launcher.gpus=v100:2", "@gres=gpu:a100:2"), "of type a100, .*of type v100"),
        (("trainer=gpu", "@gres=gpu:4"), r"Use trainer.devices=4, or gres for 1 GPUs a node"),
        (("@gpus=4",), "Use trainer.devices=4"),
        (("trainer=ddp", "trainer.devices=2", "@gpus_per_task=1"), "gpus_per_node=2 instead"),
        (("launcher.mem_gb=32", "@mem=64G"), "launcher.mem_gb is enough"),
        (("launcher.mem_gb=32", "@mem-per-cpu=4G"), "launcher.mem_gb=null to keep mem_per_cpu"),
        (("launcher.cpus_per_task=4", "@cpus_per_gpu=4"), "launcher.cpus_per_task=null"),
        (("launcher.partition=low", "@partition=high"), "launcher.partition is enough"),
        (("@ntasks=4",), r"trainer.devices=1 processes"),
        (("@ntasks-per-node=2",), "trainer.devices is enough"),
        (("@nodes=2",), "trainer.num_nodes is enough"),
        (("@time=60",), "Use launcher.timeout_min="),
        (("@array=0-3",), "Use launcher.jobs="),
    ],
)
def test_what_cannot_both_be_is_refused(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        options(*words)


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("gres", "gpu", (1, set())),
        ("gres", "gpu:a100", (1, {"a100"})),
        ("gres", "gpu:a100:2,gpu:v100:1", (3, {"a100", "v100"})),
        ("gres", "gpu:a100:2(S:0)", (None, set())),
        ("gpus_per_node", "a100:4", (4, {"a100"})),
        ("gpus", "8", (4, set())),
        ("gpus_per_task", "1", (3, set())),
    ],
)
def test_typed_gpus_are_counted(
    option: str, text: str, expected: tuple[float | None, set[str]]
) -> None:
    assert count_typed(option, text, processes=3, nodes=2) == expected
