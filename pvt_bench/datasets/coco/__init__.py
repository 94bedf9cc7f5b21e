from pvt_bench.datasets.coco.reader import Coco

__all__ = ["Coco"]
