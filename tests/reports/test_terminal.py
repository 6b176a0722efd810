import json

from fairtune_hf.reports import format_table
from fairtune_hf.reports.loaded_run import read_run
from fairtune_hf.run_record import Result, RunRecord


def test_it_holds_the_numbers_of_every_method(evaluated):
    run = json.loads((evaluated / "run.json").read_text())
    lines = format_table(read_run(evaluated).record).splitlines()
    assert len(lines) == 7
    assert max(map(len, lines)) <= 100
    for label, part in [
        ("Chosen mask", run),
        ("Linear readout", run["controls"]["linear_readout"]),
    ]:
        line = next(line for line in lines if line.startswith(label))
        for metric in ("overall_auc", "min_auc", "auc_gap"):
            low, high = part["test"][f"{metric}_ci"]
            assert f"{part['test'][metric]:.3f} [{low:.3f} to {high:.3f}]" in line


def test_columns_line_up(evaluated):
    lines = format_table(read_run(evaluated).record).splitlines()
    start = lines[2].index("Overall AUC")
    assert all(line[start - 1] == " " and line[start] == "0" for line in lines[4:])


def test_validation_is_shown_until_test_rows_are_read(evaluated):
    run = read_run(evaluated).record
    for seed in run.own.seeds:
        seed.test = Result()
    assert "validation set" in format_table(run)


def test_a_run_without_results_says_so():
    assert "No results yet" in format_table(RunRecord())


def test_control_characters_do_not_reach_the_terminal(nasty):
    run = read_run(nasty).record
    run.dataset.sensitive = "sex\x1b[2J"
    assert "\x1b" not in format_table(run)
