"""Measure a Bundle: fresh processes, honest statistics, retention against fp32, reasons for doubt."""

from edgemamba.profiling.options import ProfileOptions
from edgemamba.profiling.profiler import profile, report_folder

__all__ = ["ProfileOptions", "profile", "report_folder"]
