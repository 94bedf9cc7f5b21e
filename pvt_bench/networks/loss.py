"""How a loss over the batch of all processes is normalised."""

from torch import Tensor

from pvt_bench.processes import average, count


def divisor(number: Tensor, least: float = 1.0) -> Tensor:
    """Divisor for a loss summed over `number` () items of this process.

    It is the mean number per process, but at least `least` items in all. Gradients are averaged
    over the processes: so they are those of the sum over the items of the whole batch, divided by
    their number, however the items are spread.
    """
    return average(number).clamp(min=least / count())
