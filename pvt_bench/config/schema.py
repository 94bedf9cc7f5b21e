"""The types of the configuration: a wrong type or an unknown key fails when it is composed.

The values are in `conf/`. `model`, `task` and `dataset` hold what their builders take, which those
check themselves.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from omegaconf import MISSING, DictConfig, OmegaConf

from pvt_bench.config.launchers import Launcher
from pvt_bench.config.schedules import Schedule

View = Literal["classification", "detection", "segmentation"]
VIEWS: tuple[View, ...] = get_args(View)


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


@dataclass
class Protocol:
    """What the published costs of a task are counted for.

    num_classes: number of classes.
    size: height and width of the image in pixels.
    """

    num_classes: int
    size: tuple[int, int]


@dataclass
class Task:
    """What a task's YAML holds; OmegaConf takes it as it is, and `check_targets` checks it.

    name: name of the task, and of its experiment in MLflow.
    view: method of the dataset that gives the images and their targets.
    network: class of the network by `_target_`, with its options.
    module: class that trains and scores the network by `_target_`, with its options.
    headline: metrics that the run's row shows.
    features: whether the network is built on a pyramid, not on a classifier.
    protocol: what the published costs are counted for.
    dataset: dataset that the task was published for.
    revision: counts changes of what the same settings learn and find; older results stay apart.
    view_options: arguments of the dataset's view, such as `masks: true`.
    """

    name: str
    view: View
    network: dict[str, Any]
    module: dict[str, Any]
    headline: list[str]
    features: bool
    protocol: Protocol
    dataset: str | None = None
    revision: int | None = None
    view_options: dict[str, Any] | None = None


@dataclass
class Freeze:
    """What the papers freeze of a pre-trained backbone; costs are counted with it.

    stages: number of stages that are frozen, together with the stem; it applies where weights are
        loaded.
    batch_norm: whether the statistics of batch norms are frozen, likewise.
    """

    stages: int = 0
    batch_norm: bool = False


@dataclass
class Trainer:
    """Where and how the training loop runs.

    accelerator: device to compute on: auto, cpu or gpu.
    devices: processes per node, one per device; `schedule.batch_size` is shared by all of them.
    num_nodes: number of nodes; several need launcher=slurm.
    precision: arithmetic of training and scoring: 32-true or bf16-mixed.
    workers: processes per device that read images; null is one per core, at most eight.
    eval_batch_size: images per batch in scoring.
    checkpoint_every: steps between checkpoints.
    log_every: steps between logged metrics.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    workers: int | None = None
    eval_batch_size: int = 8
    checkpoint_every: int = 100
    log_every: int = 10


@dataclass
class Tracking:
    """Where MLflow keeps the runs.

    uri: address of the MLflow store, such as http://host:5000; null is $MLFLOW_TRACKING_URI, else
        a sqlite file in `results_dir`.
    weights: also send the weights of a finished training to MLflow, as an artifact.
    """

    uri: str | None = None
    weights: bool = False


@dataclass
class CostOptions:
    """How parameters and GFLOPs are counted.

    fvcore: also count activations, and everything a second time by fvcore, which takes longer.
    """

    fvcore: bool = False


@dataclass
class SpeedOptions:
    """How latency, images/s and memory are measured.

    size: height and width of the images in pixels; null is the size of the task's protocol.
    batch_size: images per batch of the throughput.
    dtype: arithmetic: float32, bfloat16 or float16.
    warmup: calls before the first that is timed.
    repeats: calls that are timed.
    seconds: most that each timing takes, once three calls are timed.
    """

    size: list[int] | None = None
    batch_size: int = 8
    dtype: str = "float32"
    warmup: int = 3
    repeats: int = 20
    seconds: float = 60.0


@dataclass
class Gap:
    """Why a published cost differs from the measured one.

    why: layer or convention that makes the difference.
    params_m: millions of parameters that only the published figure has.
    gflops: GFLOPs that only the published figure has.
    """

    why: str = MISSING
    params_m: float = 0.0
    gflops: float = 0.0


@dataclass
class Report:
    """Layout of a published table: its figures, and the published numbers next to them.

    title: title of the table.
    published: file of published numbers: `results/published/NAME.csv`.
    columns: figures in order, such as params, gflops and AP.
    keys: dotted keys that tell the runs of one model apart; the published file has them too.
    gaps: reasons for differing costs, by model or by section and model
        (`PVT, Table 2/resnet101`).
    tolerance: points by which a measured score may miss the published one.
    note: what holds for all rows, shown below the table.
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
    """One run.

    model: the backbone and its options.
    task: what the backbone is trained and scored for.
    dataset: images and their targets.
    schedule: length of the training, optimizer and learning rates.
    freeze: what is frozen of a pre-trained backbone.
    trainer: devices, precision, readers and checkpoints.
    launcher: where and how the cells of a sweep run.
    tracking: address of the MLflow store.
    cost: options of mode=cost.
    speed: options of mode=speed.
    mode: what the run does: train and score, score `weights`, count costs, or measure speed.
    seed: seed of the initial weights, the order of the images and their augmentation.
    weights: file of a whole network to score or to start from.
    rerun: start over, even if the result is there or can be resumed.
    old_records: records from before images were compared: ask, keep them as runs on the same
        data, or ignore them.
    results_dir: folder of records, tables and built-in data.
    report: layout of a published table; only files in `experiments/table/` set it.
    """

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
