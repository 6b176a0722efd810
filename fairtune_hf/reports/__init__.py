"""Reports: tables, figures and pages made from run folders. Imports no torch."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .comparison import is_method as is_method
    from .comparison import merge_methods as merge_methods
    from .comparison import render_comparison as render_comparison
    from .comparison import render_methods as render_methods
    from .evaluation import compare as compare
    from .evaluation import correct_by_holm as correct_by_holm
    from .evaluation import evaluate_run as evaluate_run
    from .evaluation import measure as measure
    from .page import render_report as render_report
    from .terminal import format_audit as format_audit
    from .terminal import format_table as format_table
    from .verdict import VerdictFlags as VerdictFlags
    from .verdict import run_verdict as run_verdict
    from .verdict import verdict_flags as verdict_flags
    from .verdict import verdict_sentence as verdict_sentence
    from .verdict import worst_group as worst_group

__getattr__, __dir__, __all__ = attach(__name__, __file__)
