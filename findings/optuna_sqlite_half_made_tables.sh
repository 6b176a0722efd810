#!/usr/bin/env bash
# Optuna 5.0.0 with SQLAlchemy 2.1.9 on SQLite: tables left half-made open without a word, and take two studies of one name.
#
# RDBStorage makes its tables in some twenty statements, and on SQLite each is committed by itself: the first is
# CREATE TABLE studies, the second the UNIQUE index on study_name. A process that is killed, or finds the disk full,
# between the two leaves a valid file. The next RDBStorage finds the table, adds the other tables with their indexes
# and reports nothing, but never adds the missing index (create_all skips the indexes of a table that is there). Since
# create_study(load_if_exists=True) relies on that index to learn that a study exists, it makes a second study of the
# same name, and from then on every look-up by name ends in MultipleResultsFound, shown as a StorageInternalError that
# speaks of a commit and of data that exceed a length. A study whose first start was killed at that moment can so never
# be continued.
#
# Seen: indexes: 0; studies called 'search': 2; calls: ['made or loaded', 'MultipleResultsFound']
# Exits 0 while this is so, 1 if it changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install optuna==5.0.0 sqlalchemy==2.1.9 >&2
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import sqlite3
import sys

import optuna
import sqlalchemy

optuna.logging.set_verbosity(optuna.logging.ERROR)
# The statements in Optuna's own order, and the first of them alone, as after a kill.
optuna.storages.RDBStorage("sqlite:///whole.db")
with sqlite3.connect("whole.db") as whole, sqlite3.connect("half.db") as half:
    statements = [sql for (sql,) in whole.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    assert statements[0].startswith("CREATE TABLE studies"), statements[0]
    assert statements[1].startswith("CREATE UNIQUE INDEX ix_studies_study_name"), statements[1]
    half.execute(statements[0])
half.close()
whole.close()

found = []
for _ in range(2):
    storage = optuna.storages.RDBStorage("sqlite:///half.db")
    try:
        optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
        found.append("made or loaded")
    except optuna.exceptions.StorageInternalError as error:
        found.append(type(error.__cause__).__name__)
connection = sqlite3.connect("half.db")
studies = connection.execute("SELECT COUNT(*) FROM studies WHERE study_name = 'search'").fetchone()[0]
indexes = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'ix_studies_study_name'").fetchone()[0]
print(f"optuna {optuna.__version__}, sqlalchemy {sqlalchemy.__version__}, sqlite {sqlite3.sqlite_version}")
print(f"indexes: {indexes}; studies called 'search': {studies}; calls: {found}")
sys.exit((indexes, studies, found) != (0, 2, ["made or loaded", "MultipleResultsFound"]))
PY
