"""Selective scan and Mamba block."""

from edgemamba.ssm.forms import EXPORT_FORMS, FORMS, Form, FormModule, active_form, set_form, use_form
from edgemamba.ssm.mamba import Mamba, ScanCall, scan_calls
from edgemamba.ssm.selective import SelectiveSSM

__all__ = [
    "EXPORT_FORMS",
    "FORMS",
    "Form",
    "FormModule",
    "Mamba",
    "ScanCall",
    "SelectiveSSM",
    "active_form",
    "scan_calls",
    "set_form",
    "use_form",
]
