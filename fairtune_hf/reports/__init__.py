"""Reports: tables, figures and pages made from run folders. Imports no torch."""

from .comparison import render_comparison
from .evaluation import evaluate_run
from .page import render_report
from .terminal import format_audit, format_table
from .verdict import VerdictFlags, run_verdict, verdict_flags, verdict_sentence, worst_group

__all__ = [
    "VerdictFlags",
    "evaluate_run",
    "format_audit",
    "format_table",
    "render_comparison",
    "render_report",
    "run_verdict",
    "verdict_flags",
    "verdict_sentence",
    "worst_group",
]
