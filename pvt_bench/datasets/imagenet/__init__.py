from pvt_bench.datasets.imagenet.reader import ImageNet

__all__ = ["ImageNet"]
