"""What the trials in a storage that several searches share are of, so that none joins with other data.

A run's folder says it for that folder alone; machines that share a study have folders of their own.
"""

from __future__ import annotations

from typing import Any

import optuna

from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.objectives import parse_objectives
from fairtune_hf.search.storage import open_storage
from fairtune_hf.search.study_plan import STUDY_NAME
from fairtune_hf.training.identity import Identity, describe_changes, inputs_of

_IDENTITY = "identity"  # attribute of the study


def check_shared(search: SearchArguments, identity: Identity) -> None:
    """Refuse to join a study whose trials are of other data or another model.

    Raises:
        ValueError: Something is another; the message says what.
    """
    name = search.study_name or STUDY_NAME
    storage = open_storage(str(search.storage))
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        _compare(name, study.user_attrs.get(_IDENTITY), identity)


def join_shared(search: SearchArguments, identity: Identity) -> None:
    """Open the study and write what its trials are of, unless it is known; then refuse what differs.

    Raises:
        ValueError: Something is another; the message says what.
    """
    name = search.study_name or STUDY_NAME
    directions: Any = [objective.direction for objective in parse_objectives(search.objective)]
    study = optuna.create_study(
        study_name=name,
        storage=open_storage(str(search.storage)),
        directions=directions,
        load_if_exists=True,
    )
    if _IDENTITY not in study.user_attrs:
        study.set_user_attr(_IDENTITY, inputs_of(identity))
    # Read again: another machine may have begun with other data at the same moment.
    _compare(name, study.user_attrs[_IDENTITY], identity)


def _compare(name: str, held: dict[str, Any] | None, identity: Identity) -> None:
    changes = [] if held is None else describe_changes(held, inputs_of(identity))
    if changes:
        raise ValueError(
            f"--storage: expected the data and the model of the trials that the study {name!r} there holds already; here "
            f"they are not the same: {'; '.join(changes)}. Give every machine the same data and checkpoint, or begin "
            "another study with --study-name."
        )
