from pvt_bench.datasets.digits.reader import Digits

__all__ = ["Digits"]
