import pytest

from fairtune_hf.plain_data import read_as
from fairtune_hf.reports import VerdictFlags, run_verdict, verdict_flags, verdict_sentence
from fairtune_hf.reports.verdict import flag_words
from fairtune_hf.run_record import (
    ChoiceRecord,
    ComparisonRecord,
    MethodRecord,
    Result,
    RunRecord,
    SeedRecord,
)


def compared(reference, difference, low, high, **other):
    told = {"reference": reference, "split": "test", "metric": "min_auc", "n_seeds": 3} | other
    return ComparisonRecord(difference=difference, ci=[low, high], **told)


def record(*, comparisons=(), verdict=None, **methods):
    """A run whose methods have these results on the test set, one a refit, and these choices."""
    found = {}
    for name, held in methods.items():
        choice, results = held if isinstance(held, tuple) else ({}, held)
        seeds = [
            SeedRecord(seed=seed, test=read_as(Result, result))
            for seed, result in enumerate(results)
        ]
        found[name] = MethodRecord(choice=ChoiceRecord(**choice), seeds=seeds)
    return RunRecord(methods=found, comparisons=list(comparisons), verdict=verdict)


def test_better_worse_and_noise_are_told_apart():
    sentence = verdict_sentence(
        [
            compared("full_blocks", 0.03, 0.01, 0.05),
            compared("linear_readout", -0.02, -0.03, -0.01),
        ],
        n_seeds=3,
    )
    assert "higher than under full fine-tuning (+0.030, +0.010 to +0.050)" in sentence
    assert "worse than under linear readout (\u22120.020, \u22120.030 to \u22120.010)" in sentence
    assert "within noise" not in sentence


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.02), (0.0, 0.02), (-0.02, 0.0)])
def test_an_interval_that_covers_zero_is_within_noise(low, high):
    sentence = verdict_sentence([compared("full_blocks", 0.005, low, high)], n_seeds=3)
    assert "within noise of full fine-tuning" in sentence
    assert "higher" not in sentence
    assert "worse than" not in sentence


def test_it_is_one_sentence_and_names_the_worst_group():
    sentence = verdict_sentence(
        [compared("full_blocks", 0.03, 0.01, 0.05)],
        n_seeds=1,
        worst_group="dark",
        worst_auc=0.7314,
        flags=VerdictFlags(("full_blocks",), ("linear_readout",)),
    )
    assert sentence.startswith(
        "On the test set, the AUC of the worst-off group, \u201cdark\u201d at 0.731,"
    )
    assert "; 1 seed," in sentence
    assert "by the point estimates, levelling down beside full fine-tuning" in sentence
    assert "linear readout ranked hardly better than chance (collapsed)" in sentence
    assert "not compared with linear readout" in sentence
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0


def test_other_metrics_splits_and_methods_are_not_read():
    others = [
        compared("full_blocks", 0.5, 0.4, 0.6, metric="overall_auc"),
        compared("full_blocks", 0.5, 0.4, 0.6, split="validation"),
        compared("full_blocks", 0.5, 0.4, 0.6, method="random_masks"),
    ]
    assert verdict_sentence(others, n_seeds=3).startswith("No verdict yet")


def test_undefined_differences_and_intervals_are_said():
    nan = float("nan")
    sentence = verdict_sentence(
        [compared("full_blocks", None, 0, 0), compared("linear_readout", 0.01, nan, nan)], n_seeds=3
    )
    assert "not compared with full fine-tuning" in sentence
    assert "not told apart from linear readout (+0.010, no interval could be computed)" in sentence
    assert "paired by patient" not in sentence


def test_further_controls_follow():
    sentence = verdict_sentence([compared("random_masks", 0.01, -0.1, 0.1)], n_seeds=3)
    assert "within noise of random masks" in sentence


@pytest.mark.parametrize("word", ["fair", "unbias", "debias", "safe", "solve"])
def test_it_promises_nothing(word):
    sentence = verdict_sentence([compared("full_blocks", 0.2, 0.1, 0.3)], n_seeds=3)
    assert word not in sentence.lower()


RESULT = {"overall_auc": 0.8, "overall_auc_ci": [0.75, 0.85]}


def part(low, high, **other):
    return RESULT | {"min_auc": low, "max_auc": high, "auc_gap": high - low} | other


def test_levelling_down_needs_a_smaller_gap_bought_with_the_best_groups_loss():
    down = record(fairtune=[part(0.7, 0.75)], full_blocks=[part(0.7, 0.8)])
    assert verdict_flags(down).levelled_down == ("full_blocks",)
    gained = record(fairtune=[part(0.72, 0.75)], full_blocks=[part(0.7, 0.8)])
    assert verdict_flags(gained).levelled_down == ()


def test_a_comparison_that_says_levelling_down_is_believed():
    down = [compared("full_blocks", 0, 0, 0, levelling_down=True)]
    run = record(fairtune=[part(0.7, 0.8)], comparisons=down)
    assert verdict_flags(run).levelled_down == ("full_blocks",)


@pytest.mark.parametrize(
    ("result", "collapsed"),
    [
        ({"overall_auc": 0.51, "overall_auc_ci": [0.505, 0.52]}, True),
        ({"overall_auc": 0.6, "overall_auc_ci": [0.49, 0.7]}, False),
        (RESULT | {"collapse": {"collapsed": True, "reason": "the scores are constant"}}, True),
        ({"overall_auc": 0.6, "overall_auc_ci": [0.56, 0.7]}, False),
        ({"overall_auc": None, "overall_auc_ci": None}, False),
    ],
)
def test_collapse_is_a_ranking_no_better_than_chance(result, collapsed):
    assert verdict_flags(record(fairtune=[result])).collapsed == (
        ("fairtune",) if collapsed else ()
    )


def test_a_collapse_in_one_refit_of_several_is_told():
    good, bad = RESULT, {"overall_auc": 0.52, "overall_auc_ci": [0.48, 0.56], "auc_gap": 0.01}
    run = record(fairtune=[good, bad, good], full_blocks=[bad])
    assert verdict_flags(run).collapsed == ("fairtune", "full_blocks")
    assert flag_words(run) == [
        "Chosen mask has collapsed in 1 of 3 refits (AUC 0.520, 0.480 to 0.560). "
        "A gap as small as 0.010 there means nothing.",
        "Full fine-tuning has collapsed (AUC 0.520, 0.480 to 0.560). "
        "A gap as small as 0.010 means nothing.",
    ]


def test_what_cannot_be_told_from_chance_is_not_called_collapsed():
    result = {"overall_auc": 0.66, "overall_auc_ci": [0.446, 0.828], "auc_gap": 0.3}
    run = record(fairtune=[result])
    flags = verdict_flags(run)
    assert (flags.collapsed, flags.uncertain) == ((), ("fairtune",))
    assert flag_words(run) == [
        "Chosen mask cannot be told from chance (AUC 0.660, 0.446 to 0.828)."
    ]
    sentence = verdict_sentence([compared("full_blocks", 0.0, -0.1, 0.1)], n_seeds=1, flags=flags)
    assert "; chosen mask could not be told from chance." in sentence
    assert "collapsed" not in sentence


def test_a_method_is_called_collapsed_or_uncertain_in_the_sentence_not_both():
    results = [
        {"overall_auc": 0.5, "overall_auc_ci": [0.4, 0.6]},
        {"overall_auc": 0.6, "overall_auc_ci": [0.45, 0.7]},
    ]
    flags = verdict_flags(record(fairtune=results))
    assert flags.collapsed == flags.uncertain == ("fairtune",)
    sentence = verdict_sentence([compared("full_blocks", 0.0, -0.1, 0.1)], n_seeds=2, flags=flags)
    assert "(collapsed)" in sentence
    assert "told from chance" not in sentence


def test_levelling_down_beside_several_controls_is_said_once():
    better = [part(0.7, 0.8)]
    run = record(fairtune=[part(0.7, 0.75)], full_blocks=better, linear_readout=better)
    (words,) = flag_words(run)
    assert words.startswith("Levelling down beside full fine-tuning and linear readout: by the")


def test_the_worst_group_is_that_of_the_mean_over_the_refits_as_the_differences_are():
    def refit(light, dark):
        groups = {"light": {"auc": light}, "dark": {"auc": dark}}
        return {"min_auc": min(light, dark), "groups": groups}

    refits = [refit(0.80, 0.90), refit(0.80, 0.60), refit(0.80, 0.60)]
    run = record(fairtune=refits, comparisons=[compared("full_blocks", 0.2, 0.1, 0.3)])
    assert "the worst-off group, \u201cdark\u201d at 0.667," in run_verdict(run)
    assert "; means of 3 seeds, 95" in run_verdict(run)


def test_a_carried_verdict_is_kept_and_a_missing_one_is_made():
    found = [compared("full_blocks", 0.2, 0.1, 0.3)]
    assert run_verdict(record(comparisons=found, verdict="As written.")) == "As written."
    assert "higher than under full fine-tuning" in run_verdict(record(comparisons=found))


TRAINING = {"mask": "10", "layout": "block3", "learning_rate": 1e-3, "epochs": 3}


def test_a_control_the_search_chose_is_said_to_be_the_same():
    same = [compared("random_mask", 0.0, 0.0, 0.0)]
    run = record(comparisons=same, fairtune=(TRAINING, []), random_mask=(TRAINING, []))
    assert "that of a random mask, which the search itself chose" in run_verdict(run)


@pytest.mark.parametrize(
    "changed", [{"mask": "01"}, {"learning_rate": 2e-3}, {"epochs": 4}, {"epochs": None}]
)
def test_another_training_with_the_same_result_is_not_said_to_be_the_same(changed):
    """Two different models that both reach AUC 1, or two constant ones."""
    same, other = [compared("random_mask", 0.0, 0.0, 0.0)], TRAINING | changed
    run = record(comparisons=same, fairtune=(TRAINING, []), random_mask=(other, []))
    assert "within noise of a random mask (no difference seen)" in run_verdict(run)
    assert "chose" not in run_verdict(run)


def test_a_difference_that_holms_correction_takes_back_is_said_so():
    sentence = verdict_sentence(
        [
            compared("full_blocks", 0.03, 0.01, 0.05, p_value_holm=0.012),
            compared("linear_readout", 0.02, 0.001, 0.04, p_value_holm=0.081),
            compared("random_mask", -0.02, -0.04, -0.001, p_value_holm=0.081),
        ],
        n_seeds=3,
    )
    assert "higher than under full fine-tuning (+0.030, +0.010 to +0.050)" in sentence
    assert (
        "higher than under linear readout by its own interval but not after Holm's correction "
        "(+0.020, +0.001 to +0.040, corrected p 0.081)" in sentence
    )
    assert "worse than under a random mask by its own interval but not" in sentence
    assert "tests corrected by Holm for 3 controls" in sentence
