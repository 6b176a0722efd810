"""What is declared once is seen everywhere: objectives, run.json, tables, comparisons, cards."""

from __future__ import annotations

import pytest

from fairtune_hf.metrics import registry
from fairtune_hf.reports.comparison import COMPARED
from fairtune_hf.reports.tables import METRICS
from fairtune_hf.search.objectives import parse_objectives


@pytest.mark.parametrize("name", registry.METRICS)
def test_every_metric_with_a_direction_is_an_objective(name):
    metric = registry.METRICS[name]
    if metric.small_is_good is None:
        with pytest.raises(ValueError, match="Known: overall_auc, min_auc"):
            parse_objectives(name.replace("_", "x"))
        return
    (objective,) = parse_objectives(name)
    assert (
        (objective.direction == "minimize") == metric.small_is_good == registry.is_small_good(name)
    )


def test_the_tests_begin_with_what_a_search_looks_for():
    assert registry.TESTED == ("min_auc", "overall_auc", "auc_gap")


def test_negative_predictive_value_is_in_objectives_tables_and_comparisons():
    name = "negative_predictive_value"
    assert parse_objectives(f"{name}_lcb,{name}")[0].direction == "maximize"
    assert METRICS[name] == "NPV"
    assert COMPARED[name]
    assert name in registry.OBJECTIVES
