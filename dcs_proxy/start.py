"""What ssh starts, under ``python -I -S``: hot.py, compiled once instead of each time."""

from _frozen_importlib_external import SourceFileLoader

_HOT = __file__.rpartition("/")[0] + "/hot.py"
_CODE = SourceFileLoader("hot", _HOT).get_code("hot")
exec(_CODE or "", {"__name__": "__main__", "__file__": _HOT})  # noqa: S102
