"""What every dataset answers: classification(), detection() or segmentation(), or why not."""

from typing import Any, NoReturn

from pvt_bench.errors import InputError

OFFERED: dict[str, tuple[str, ...]] = {
    "classification": (),
    "detection": ("coco", "digits"),
    "segmentation": (),
}


class Views:
    """Base of the datasets: each view that a dataset lacks is an error that names who has it."""

    name: str

    def classification(self, split: str) -> Any:
        """Images with one label each."""
        self._refuse("classification")

    def detection(self, split: str, masks: bool = False) -> Any:
        """Images with boxes and labels, and masks of the objects where asked for."""
        self._refuse("detection")

    def segmentation(self, split: str) -> Any:
        """Images with a label for each pixel."""
        self._refuse("segmentation")

    def _refuse(self, view: str) -> NoReturn:
        own = [other for other, names in OFFERED.items() if self.name in names]
        having = OFFERED[view]
        choice = (
            f"Type dataset={' or dataset='.join(having)}." if having else "No dataset has it yet."
        )
        raise InputError(
            f"dataset={self.name} has no {view} view (it has: {', '.join(own) or 'none'}). {choice}"
        )
