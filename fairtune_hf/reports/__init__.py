"""Reports: tables, figures and pages made from run folders. Imports no torch."""

from .comparison import render_comparison
from .evaluation import compare_method, evaluate_method, evaluate_run
from .method_comparison import is_method_run, render_methods
from .page import render_report
from .terminal import format_audit, format_table
from .verdict import VerdictFlags, run_verdict, verdict_flags, verdict_sentence, worst_group

__all__ = [
    "VerdictFlags",
    "compare_method",
    "evaluate_method",
    "evaluate_run",
    "format_audit",
    "format_table",
    "is_method_run",
    "render_comparison",
    "render_methods",
    "render_report",
    "run_verdict",
    "verdict_flags",
    "verdict_sentence",
    "worst_group",
]
