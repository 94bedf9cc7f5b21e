"""Two processes together do what one does alone: scores to the bit, gradients to rounding."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_tree import write_coco_tree
from forking import LIBRARIES
from test_classification import CLASSES, Backbone, View
from test_detr import targets
from test_retinanet import Pyramid
from test_segmentation import Scenes
from torch import Tensor, distributed, nn

from pvt_bench.datasets.coco.reader import Coco
from pvt_bench.datasets.loading import Share, eval_loader
from pvt_bench.networks.classifier import Classifier
from pvt_bench.networks.detr import DETR
from pvt_bench.networks.loss import divisor
from pvt_bench.networks.mask_rcnn import MaskRCNN
from pvt_bench.networks.retinanet import RetinaNet
from pvt_bench.networks.segmenter import Segmenter
from pvt_bench.networks.semantic_fpn import SemanticFPN
from pvt_bench.processes import count, gather, rank
from pvt_bench.tasks.base import Task
from pvt_bench.tasks.classification import Classification
from pvt_bench.tasks.detection import Detection
from pvt_bench.tasks.segmentation import Segmentation

PROCESSES = 2
Together = Callable[..., list[Any]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes: sums are split by threads, so that more of them round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def join(numbers: Any, store: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        f"file://{store}",
        rank=numbers.get(),
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    """Call a function, which must wait for the other process, on each of them; what they return."""
    context = get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    numbers = context.Queue()
    for number in range(PROCESSES):
        numbers.put(number)
    options = (numbers, tmp_path_factory.mktemp("store") / "file")
    with ProcessPoolExecutor(PROCESSES, context, join, options) as pool:

        def call(function: Callable[..., Any], *words: Any) -> list[Any]:
            calls = [pool.submit(function, *words) for _ in range(PROCESSES)]
            return [each.result() for each in calls]

        yield call


def classification(folder: Path) -> Task:
    view = View()
    return Classification(Classifier(Backbone(), CLASSES), None, view)


def boxes(folder: Path) -> Task:
    view = Coco("coco", str(folder), 96, 160, 0.0).detection("val")
    return Detection(RetinaNet(Pyramid(), view.num_classes, score_threshold=0.0), None, view)


def masks(folder: Path) -> Task:
    view = Coco("coco", str(folder), 96, 160, 0.0).detection("val", masks=True)
    options = {"proposals": 20, "score_threshold": 0.0, "detections": 8}
    return Detection(MaskRCNN(Pyramid(), view.num_classes, **options), None, view)


def segmentation(folder: Path) -> Task:
    view = Scenes()
    return Segmentation(SemanticFPN(Pyramid(), view.num_classes), None, view)


def score(build: Callable[[Path], Task], tree: Path, batch_size: int, directory: Path) -> int:
    """Score a network of random weights; how many images this process took."""
    torch.manual_seed(0)
    task = build(tree).eval()
    for weight in task.network.parameters():
        nn.init.normal_(weight, std=0.05)
    task.on_validation_start()
    with torch.inference_mode():
        for batch in eval_loader(task.view, batch_size, 0, Share(rank(), count())):
            task.validation_step(batch, 0)
    taken = len(task.results)
    task.on_validation_end()
    if rank() == 0:
        torch.save(task.score(directory), directory / "scores.pt")
    assert gather([rank()]) == list(range(count()))
    return taken


def files(directory: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("batch_size", [2, 50], ids=["two batches and more", "one batch"])
@pytest.mark.parametrize("build", [classification, boxes, masks, segmentation])
def test_scores_do_not_depend_on_the_number_of_processes(
    build: Callable[[Path], Task], batch_size: int, together: Together, tmp_path: Path
) -> None:
    """On an odd number of images, also where a process has none."""
    tree, one, two = (tmp_path / name for name in ("tree", "one", "two"))
    for folder in (write_coco_tree(tree), one, two):
        folder.mkdir(exist_ok=True)
    images = score(build, tree, batch_size, one)
    assert images % 2 == 1
    taken = together(score, build, tree, batch_size, two)
    assert sum(taken) == images
    assert (min(taken) == 0) == (batch_size > images)
    alone, shared = files(one), files(two)
    assert alone.keys() == shared.keys()
    assert len(alone) > 3
    assert [name for name in alone if alone[name] != shared[name]] == []


def segments() -> list[dict[str, Tensor]]:
    """Ignored pixels in differing numbers: of the last image all."""
    generator = torch.Generator().manual_seed(3)
    made = torch.randint(CLASSES, (4, 64, 96), generator=generator).to(torch.uint8)
    for number, each in enumerate(made):
        each[: 64 * number // 3] = 255
    return [{"segments": each} for each in made]


class Shallow(Segmenter):
    """A segmenter whose loss is over the pixels that are not ignored, like Trans2Seg's."""

    def __init__(self) -> None:
        super().__init__(Pyramid())
        self.head = nn.Conv2d(Pyramid.channels[0], CLASSES, 1)

    def logits(self, batch: Tensor) -> Tensor:
        return self.head(self.backbone(batch)[0])


def mask_rcnn() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Mask R-CNN whose losses are over all anchors and regions: it draws none at random."""
    network = MaskRCNN(Pyramid(), CLASSES, regions=10**6, proposals=20)
    network.head.proposals.fg_bg_sampler.batch_size_per_image = 10**6
    truth = targets(5, 0, 1, 12)
    for each in truth:
        inside = torch.zeros(len(each["boxes"]), 64, 96, dtype=torch.bool)
        inside[:, ::2] = True
        each["masks"] = inside
    return network, truth


NETWORKS: dict[str, Callable[[], tuple[nn.Module, list[dict[str, Tensor]]]]] = {
    "RetinaNet": lambda: (RetinaNet(Pyramid(), CLASSES), targets(5, 0, 1, 12)),
    # More objects than queries, and none.
    "DETR": lambda: (DETR(Pyramid(), CLASSES, queries=6, layers=2), targets(3, 0, 1, 9)),
    "Semantic FPN": lambda: (SemanticFPN(Pyramid(), CLASSES), segments()),
    "a segmenter": lambda: (Shallow(), segments()),
    "Mask R-CNN": mask_rcnn,
}


def gradients(name: str) -> dict[str, Tensor]:
    """The gradient of a batch of four images by parameter, averaged over the processes.

    Without dropout, and with the statistics of batch norms at rest, which each process has alone.
    """
    torch.manual_seed(0)
    network, truth = NETWORKS[name]()
    images = [torch.rand(3, 64, 96) for _ in truth]
    own = slice(rank() * len(images) // count(), (rank() + 1) * len(images) // count())
    losses = network.eval()(images[own], truth[own])
    sum(losses.values()).backward()
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    if count() > 1:
        for gradient in found.values():
            distributed.all_reduce(gradient)
            gradient /= count()
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_whole_batch(name: str, together: Together) -> None:
    expected = gradients(name)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for found in together(gradients, name):
        assert found.keys() == expected.keys()
        for parameter, gradient in expected.items():
            torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


def divide(numbers: list[int]) -> float:
    return float(divisor(torch.tensor(numbers[rank()])))


@pytest.mark.parametrize(
    ("numbers", "expected"), [([3, 8], 5.5), ([0, 1], 0.5), ([1, 1], 1), ([0, 0], 0.5)]
)
def test_things_are_counted_over_all_processes(
    numbers: list[int], expected: float, together: Together
) -> None:
    assert together(divide, numbers) == [expected] * PROCESSES
    assert divide([7]) == 7
    assert divide([0]) == 1


class Losses(nn.Module):
    """A network whose loss of boxes is given."""

    def __init__(self, box: float) -> None:
        super().__init__()
        self.box = box

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"classification": torch.tensor(2.0), "box": torch.tensor(self.box)}


def step(bad: list[int]) -> str:
    """The message of an error, or nothing; `bad` are the processes whose loss is not a number."""
    task = Task(Losses(float("nan") if rank() in bad else 1.0), None, None)
    targets = [{"image_id": torch.tensor(rank() + number)} for number in (10, 20)]
    try:
        losses = task.training_step(([], targets), 0)
    except FloatingPointError as error:
        return str(error)
    finally:
        gather([rank()])
    assert losses["loss"] == 3
    return ""


def test_all_processes_stop_where_a_loss_is_not_a_number(together: Together) -> None:
    assert together(step, []) == ["", ""]
    first, second = together(step, [1])
    assert first == second
    assert "the box loss on the images [11, 21]" in first
    assert "classification" not in first
    assert "10" not in first
    both, _ = together(step, [0, 1])
    assert "on the images [10, 20]; the box loss on the images [11, 21]" in both
    assert step([]) == ""
    assert "the box loss on the images [10, 20]." in step([0])
