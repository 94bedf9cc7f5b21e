from pvt_bench.datasets.ade20k.reader import ADE20K

__all__ = ["ADE20K"]
