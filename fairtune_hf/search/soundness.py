"""Whether the studies of a search are whole: looked at before anything is loaded, and set aside where one may begin anew."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.controls import SEARCHED
from fairtune_hf.search.storage import read_trials, without_password
from fairtune_hf.search.study_file import set_aside
from fairtune_hf.search.study_plan import STUDY_NAME, file_url
from fairtune_hf.search.trial_tables import are_whole, noted_study, read_listed, require_trials


def check_study(folder: RunFolder, search: SearchArguments) -> bool:
    """Look at a search's studies before anything is loaded; return whether its tables are whole too.

    Nothing is written where the study is in a file.

    Raises:
        ValueError: A study is damaged, or lost trials that a trials.csv lists.
    """
    url, name = search.storage or file_url(folder), search.study_name or STUDY_NAME
    names = {folder.path: name}
    for control in SEARCHED:
        names[folder.path / "control_searches" / control] = f"{name}-{control}"
    repetitions = RunFolder(folder.path / "confirm")
    if confirmed := noted_study(repetitions):
        names[repetitions.path] = confirmed
    whole = True
    for path, its_name in names.items():
        where = RunFolder(path)
        listed = read_listed(where, its_name)
        trials = read_trials(url, its_name)
        require_trials(where, listed, trials, without_password(url))
        whole &= not trials or are_whole(where, trials)
    return whole


def set_aside_if_damaged(folder: RunFolder) -> None:
    """Where a folder's own study is damaged or lost trials, give its files other names and say so: it begins anew."""
    try:
        check_study(folder, SearchArguments())
    except ValueError as error:
        moved = set_aside(folder.study_file, folder.trials_file, folder.curves_file)
        names = ", ".join(path.name for path in moved)
        tqdm.write(
            f"The search in {folder.path} begins anew, its files are now {names}. {error}",
            file=sys.stderr,
        )
