"""The types of the configuration: a wrong type or an unknown key fails when it is composed.

The values are in `conf/`. `model`, `task` and `dataset` hold what their builders take, which those
check themselves.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from omegaconf import MISSING, DictConfig, OmegaConf

from pvt_bench.errors import InputError


class Mode(StrEnum):
    """What one run does."""

    train = "train"
    test = "test"
    cost = "cost"
    speed = "speed"


class OldRecords(StrEnum):
    """What becomes of a record from before fingerprints covered images: ask the user, take it for
    that of the same data, or leave it alone."""

    ask = "ask"
    keep = "keep"
    ignore = "ignore"


class Optimizer(StrEnum):
    """The optimizers of the published recipes."""

    adamw = "adamw"
    sgd = "sgd"


class Decay(StrEnum):
    """How the learning rate falls: by `gamma` at each milestone, as half a cosine, or as
    `(1 - progress) ** power`."""

    step = "step"
    cosine = "cosine"
    poly = "poly"


@dataclass
class Protocol:
    """What the published costs of a task are counted for: classes, and height and width."""

    num_classes: int
    size: tuple[int, int]


@dataclass
class Task:
    """What a task's YAML holds; OmegaConf takes it as it is, and `check_targets` checks it.

    dataset: the data that it was published for.
    revision: counts changes of what the same settings learn and find.
    view, view_options: method of the dataset that gives the images, and what it is called with.
    network, module: what is built, by `_target_`. headline: metrics of a run's row.
    features: whether the network is built on a pyramid, not on a classifier.
    """

    name: str
    view: Literal["classification", "detection", "segmentation"]
    network: dict[str, Any]
    module: dict[str, Any]
    headline: list[str]
    features: bool
    protocol: Protocol
    dataset: str | None = None
    revision: int | None = None
    view_options: dict[str, Any] | None = None


@dataclass
class Schedule:
    """How long and with which steps a network is trained.

    epochs or steps: the length; exactly one of them is set.
    batch_size: images a step, over all devices. Where `reference_batch` is set, `lr` and `min_lr`
        belong to a batch of that size, and grow and shrink with `batch_size`.
    warmup_steps or warmup_epochs, warmup_ratio: the rate rises linearly from
        `warmup_ratio * lr`.
    milestones: epochs at whose end the rate is multiplied by `gamma` (decay: step).
    min_lr: where a cosine or a polynomial ends; power: of the polynomial.
    backbone_lr: factor on the rate of the backbone.
    no_decay_vectors: no weight decay on norms, biases and position embeddings.
    gradient_clip: largest norm of the gradient, or none.
    ema: decay of an average of the weights over the steps, which is scored and kept; or none.
    repeats: copies of an image in a batch, each augmented by itself (arXiv 1901.09335).
    mixup, cutmix: alphas of mixing images of a batch (arXiv 1710.09412, 1905.04899).
    mix_switch: probability of CutMix where both are on.
    shorter_side, longer_side: pixels of COCO's images, where a schedule was published with its
        own; of several shorter sides training draws one, and the test takes the last.
    """

    name: str = MISSING
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = MISSING
    reference_batch: int | None = None
    optimizer: Optimizer = Optimizer.adamw
    lr: float = MISSING
    min_lr: float = 0.0
    weight_decay: float = 0.0
    no_decay_vectors: bool = False
    momentum: float = 0.9
    backbone_lr: float = 1.0
    warmup_steps: int = 0
    warmup_epochs: int = 0
    warmup_ratio: float = 0.001
    decay: Decay = Decay.step
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    power: float = 0.9
    gradient_clip: float | None = None
    ema: float | None = None
    repeats: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5
    shorter_side: Any = None
    longer_side: int | None = None


@dataclass
class Freeze:
    """What the papers freeze of a pre-trained backbone: the stem with the first `stages` stages,
    and the statistics of batch norms. It applies where weights are loaded, and to costs."""

    stages: int = 0
    batch_norm: bool = False


@dataclass
class Trainer:
    """Where and how the loop runs.

    devices, num_nodes: one process a device; `schedule.batch_size` is shared among them all.
    workers: processes of each that read images; by default one a core, at most eight.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    workers: int | None = None
    eval_batch_size: int = 8
    checkpoint_every: int = 100
    log_every: int = 10


class LauncherName(StrEnum):
    """Where the processes of runs are started."""

    in_process = "in_process"
    local = "local"
    slurm = "slurm"


@dataclass
class Launcher:
    """How the cells of a sweep are started; what a launcher does not know of, it leaves alone.

    jobs: cells that run at once; on SLURM the parallelism of the job array.
    gpus: of each node of a cell, on SLURM with a type if need be, `a100:2`; by default one a
        device where `trainer.accelerator` is gpu, on this machine also where it is auto and there
        are GPUs.
    visible_gpus: the numbers of this machine's GPUs that local cells share; by default all.
    cpus_per_task, mem_gb: of each process, and of each node.
    timeout_min: time limit; a cell that reaches it saves and goes on in a new job, at most
        `max_num_timeout` times.
    signal_delay_s: seconds before the limit at which the cell is told to save.
    partition, account, qos, constraint: as SLURM names them; additional_parameters: any others
        of `sbatch`, by name, which are sent as they are typed: a `gres` takes the place of `gpus`.
    setup: lines of shell before the cell, such as `module load cuda`.
    detach: submit and return; `python -m pvt_bench.status` shows the cells.
    allow_changed_code: run a queued cell though the code is not that of its submission.
    """

    name: LauncherName = LauncherName.in_process
    jobs: int = 1
    gpus: int | str | None = None
    visible_gpus: list[int] | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 4320
    max_num_timeout: int = 20
    signal_delay_s: int = 120
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    detach: bool = False
    allow_changed_code: bool = False


class Gpus(NamedTuple):
    """GPUs of a node: how many, and of which type, in SLURM's words."""

    number: int
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if self.kind else str(self.number)


def read_gpus(typed: int | str | None) -> Gpus | None:
    """What `launcher.gpus` asks for; None where nothing is typed.

    Raises:
        InputError: it is neither a number nor a type with a number.
    """
    if typed is None:
        return None
    found = re.fullmatch(r"(?:([A-Za-z][\w.-]*):(?=0*[1-9]))?(\d+)", str(typed))
    if found is None:
        raise InputError(
            f"launcher.gpus={typed} must be the number of GPUs of a node, or one of SLURM's types "
            "with a number. Use for example launcher.gpus=2 or launcher.gpus=a100:2."
        )
    return Gpus(int(found[2]), found[1] or "")


@dataclass
class Tracking:
    """The address of the MLflow store; null is MLFLOW_TRACKING_URI or sqlite in `results_dir`."""

    uri: str | None = None


@dataclass
class CostOptions:
    """fvcore: also count activations and a second opinion by fvcore, which takes longer."""

    fvcore: bool = False


@dataclass
class SpeedOptions:
    """size: height and width, the task's own by default. Each timing takes at most `seconds`
    once three calls are timed."""

    size: list[int] | None = None
    batch_size: int = 8
    dtype: str = "float32"
    warmup: int = 3
    repeats: int = 20
    seconds: float = 60.0


@dataclass
class Gap:
    """Why a published cost is not what is measured: millions of parameters and GFLOPs that the
    published figure has and the measured one has not, and the layer or the convention."""

    why: str = MISSING
    params_m: float = 0.0
    gflops: float = 0.0


@dataclass
class Report:
    """A published table: which figures it shows, beside which published numbers.

    title: stands above it. published: `results/published/<this>.csv`.
    columns: figures in order, see `pvt_bench.report.tables.published.FIGURES`.
    keys: what tells the runs of one model apart, as dotted keys; the published file has them too.
    gaps: by model, or by section and model (`PVT, Table 2/resnet101`).
    tolerance: points by which a measured score may miss the published one.
    note: what a reader has to know of all rows.
    """

    title: str = MISSING
    published: str = MISSING
    columns: list[str] = MISSING
    keys: list[str] = field(default_factory=list)
    gaps: dict[str, Gap] = field(default_factory=dict)
    tolerance: float = 0.5
    note: str = ""


if TYPE_CHECKING:
    TaskNode: TypeAlias = Task
else:
    TaskNode = Any  # It has the keys of its YAML and no others: they are part of what a run is.


@dataclass
class Config:
    """One run."""

    model: Any = MISSING
    task: TaskNode = MISSING
    dataset: Any = MISSING
    schedule: Schedule = field(default_factory=Schedule)
    freeze: Freeze = field(default_factory=Freeze)
    trainer: Trainer = field(default_factory=Trainer)
    launcher: Launcher = field(default_factory=Launcher)
    tracking: Tracking = field(default_factory=Tracking)
    cost: CostOptions = field(default_factory=CostOptions)
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    mode: Mode = Mode.train
    seed: int = 0
    weights: str | None = None
    rerun: bool = False
    old_records: OldRecords = OldRecords.ask
    results_dir: str = MISSING
    report: Report | None = None


def typed(config: Any) -> Config:
    """A composed configuration, by the types that OmegaConf keeps it to."""
    return cast(Config, config)


def select(config: Config, key: str) -> Any:
    """The value of a dotted key; None where it has none."""
    return OmegaConf.select(cast(DictConfig, config), key)


def plain(config: Any) -> dict[str, Any]:
    """A configuration, or a node of one, as plain dicts, lists and scalars, resolved."""
    values = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
