"""Push a run to the Hugging Face Hub: adapter with all that belongs to it, card, `run.json`, report in one commit.

Nothing leaves the machine before every file was looked at: no pickles, no predictions unless asked,
no row or patient ids, no paths of this machine, no counts of groups of fewer than ten people.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)

from fairtune_hf.checksums import hash_files
from fairtune_hf.model_description import FILE, PROCESSOR, processor_config
from fairtune_hf.reports.loaded_run import LoadedRun, read_run
from fairtune_hf.reports.page import report_text
from fairtune_hf.reports.tables import is_hub_id
from fairtune_hf.run_folder import ADAPTER_FILES, RunFolder
from fairtune_hf.training.adapter import require_whole_adapter

from .card import base_kind, base_on_hub, card_text
from .public import (
    check_no_ids,
    check_no_pickle,
    known_ids,
    public_config,
    public_description,
    public_predictions,
    public_run,
)

# The HTTP library below huggingface_hub changes its name between versions; its error class does not.
_NETWORK_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    RuntimeError,
    *(k for k in HfHubHTTPError.__mro__ if k.__name__ == "HTTPError" and issubclass(k, Exception)),
)
_BASE_FILES = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class PushFile:
    """One file of a push: its name in the repository and its bytes, or where they lie."""

    name: str = field(metadata={"help": "path in the repository"})
    content: bytes | Path = field(repr=False, metadata={"help": "bytes, or the file"})

    @property
    def size_bytes(self) -> int:
        """Number of bytes."""
        found = self.content
        return found.stat().st_size if isinstance(found, Path) else len(found)


@dataclass(frozen=True)
class PushPlan:
    """What a push would send, and where."""

    repo_id: str = field(metadata={"help": "Hub id of the adapter"})
    private: bool = field(metadata={"help": "whether the repositories are private"})
    files: tuple[PushFile, ...] = field(metadata={"help": "files of the adapter's repository"})
    base_repo_id: str | None = field(
        default=None, metadata={"help": "Hub id of the base model where it is pushed too"}
    )
    base_files: tuple[PushFile, ...] = field(
        default=(), metadata={"help": "files of the base model's repository"}
    )
    note: str = field(default="", metadata={"help": "what could not be checked, or empty"})

    @property
    def size_bytes(self) -> int:
        """Number of bytes of all files."""
        return sum(file.size_bytes for file in (*self.files, *self.base_files))

    def render(self) -> str:
        """Render the list of files with their bytes, for a terminal."""
        kind = "private" if self.private else "public"
        lines = [f"{self.repo_id} ({kind})", *map(_file_line, self.files)]
        if self.base_repo_id:
            lines += [f"{self.base_repo_id} ({kind})", *map(_file_line, self.base_files)]
        lines.append(f"{self.size_bytes:>14,} bytes in all")
        return "\n".join([*lines, *([self.note] if self.note else [])])


def _file_line(file: PushFile) -> str:
    return f"{file.size_bytes:>14,}  {file.name}"


def push_run(
    run_dir: Path | str,
    repo_id: str,
    *,
    private: bool = True,
    dry_run: bool = False,
    with_base: bool = False,
    base_dir: Path | str | None = None,
    with_predictions: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
) -> PushPlan:
    """Upload a run, or with `dry_run` only say what would be sent.

    The files of a repository arrive in one commit, so a reader never sees half of a push. After an
    interruption the same call goes on: large files that have arrived are not sent again.

    Args:
        run_dir: Folder of an evaluated run.
        repo_id: Hub id, `organisation/name`.
        private: Keep the repositories private; where it is False everybody sees them.
        dry_run: Check and list the files; open no connection.
        with_base: Push the base model too, to `repo_id` with `-base` appended; for a local folder.
        base_dir: The base model's folder, for `with_base`.
        with_predictions: Push scores and labels too, without row and patient ids and without the
            rows of groups of fewer than ten people.
        endpoint: Address of the Hub; `HF_ENDPOINT` or the public one if not given.
        token: Access token; the stored one if not given.

    Returns:
        What was, or would be, sent.

    Raises:
        FileNotFoundError: The run, its adapter or the base model's folder is not there.
        ValueError: Something must not be pushed (pickles, ids, a damaged adapter), or the base model
            would be missing.
        ConnectionError: The Hub could not be reached or refused.
    """
    plan = plan_push(
        run_dir,
        repo_id,
        private=private,
        with_base=with_base,
        base_dir=base_dir,
        with_predictions=with_predictions,
    )
    if dry_run:
        return plan
    api = HfApi(endpoint=endpoint, token=token)
    base_revision, arrived = None, ""
    if plan.base_repo_id:
        base_revision = _commit(api, plan.base_repo_id, plan.base_files, private)
        arrived = f" The base model has arrived at {plan.base_repo_id} and is to be seen there."
    files = tuple(_with_revision(file, base_revision) for file in plan.files)
    _commit(api, plan.repo_id, files, private, arrived)
    return plan


def plan_push(
    run_dir: Path | str,
    repo_id: str,
    *,
    private: bool = True,
    with_base: bool = False,
    base_dir: Path | str | None = None,
    with_predictions: bool = False,
) -> PushPlan:
    """Check everything that `push_run` would send, and return it; see there."""
    if repo_id.count("/") != 1 or not is_hub_id(repo_id):
        raise ValueError(
            f"--repo-id should be organisation/name, of letters, digits and . _ -; got {repo_id!r}."
        )
    folder = read_run(run_dir)
    if not folder.result("test"):
        raise ValueError(
            f"run_dir should hold an evaluated run; {folder.path} has no test results, so its card "
            "could not say how the adapter does. Run `fairtune evaluate --run` on it first."
        )
    check_no_pickle(folder.path / "adapter")
    base_repo_id = f"{repo_id}-base" if with_base else None
    base_files = _base_files(folder, base_dir) if with_base else ()
    base = base_repo_id or _base_to_be_had(folder)
    files = [
        *_adapter_files(folder, base),
        PushFile("README.md", card_text(folder, repo_id=repo_id, base_model=base_repo_id).encode()),
        PushFile("run.json", public_run(folder).encode()),
        PushFile("report.html", report_text(folder).encode()),
    ]
    ids, note = known_ids(folder)
    texts = {f.name: f.content for f in files if isinstance(f.content, bytes)}
    check_no_ids(texts, ids, source="run.json")
    if with_predictions:
        files.append(PushFile("predictions.parquet", public_predictions(folder)))
    return PushPlan(repo_id, private, tuple(files), base_repo_id, base_files, note)


def _adapter_files(folder: LoadedRun, base: str | None) -> list[PushFile]:
    adapter = folder.path / "adapter"
    require_whole_adapter(RunFolder(folder.path), folder.record.choice)
    config = json.loads((adapter / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    public = public_config(config, base, folder.record.model.revision)
    described = public_description(folder, base)
    processor = json.dumps(processor_config(described.input), indent=1) + "\n"
    return [
        PushFile(ADAPTER_FILES[0], public.encode()),
        PushFile(ADAPTER_FILES[1], adapter / ADAPTER_FILES[1]),
        PushFile(FILE, described.to_text().encode()),
        PushFile(PROCESSOR, processor.encode()),
    ]


def _base_to_be_had(folder: LoadedRun) -> str | None:
    """Return the base model's Hub id, None for the embedded one.

    Raises:
        ValueError: The base model is a local folder, which a stranger does not have.
    """
    kind = base_kind(folder)
    if kind == "local":
        name = folder.record.model.id
        raise ValueError(
            f"The base model of this run is the local folder {name!r}; without it nobody can load "
            "the adapter. Push it too with --with-base (and --base-dir FOLDER), if its licence "
            "allows, or train from a model that is on the Hub."
        )
    return base_on_hub(folder) if kind == "hub" else None


def _base_files(folder: LoadedRun, base_dir: Path | str | None) -> tuple[PushFile, ...]:
    if base_kind(folder) != "local":
        raise ValueError(
            "--with-base is for a base model that is a local folder; the one of this run, "
            f"{folder.record.model.id}, can be had without it. Leave --with-base out."
        )
    if base_dir is None:
        raise ValueError("--with-base needs the base model's folder: add --base-dir FOLDER.")
    base = Path(base_dir)
    weights = sorted(base.glob("*.safetensors"))
    if not weights or not (base / "config.json").is_file():
        raise FileNotFoundError(
            f"--base-dir should be a folder with config.json and *.safetensors; {base} has not."
        )
    check_no_pickle(base)
    recorded = folder.record.model.sha256
    if recorded and hash_files(weights) != recorded:
        raise ValueError(
            f"--base-dir {base} holds other weights than the run was trained from (sha256 differs "
            "from run.json). Give the folder that `--model` named."
        )
    names = [*_BASE_FILES, *(path.name for path in base.glob("*.index.json"))]
    settings = [base / name for name in dict.fromkeys(names) if (base / name).is_file()]
    public = [
        PushFile(path.name, _public_settings(path.read_text(encoding="utf-8")).encode())
        for path in settings
    ]
    return (*public, *(PushFile(path.name, path) for path in weights))


def _public_settings(text: str) -> str:
    """Leave out where the base model lay on this machine."""
    settings: dict[str, Any] = json.loads(text)
    settings.pop("_name_or_path", None)
    return json.dumps(settings, indent=2) + "\n"


def _with_revision(file: PushFile, revision: str | None) -> PushFile:
    """Record the base's commit where the adapter's files name it, once it is known."""
    if revision is None or not isinstance(file.content, bytes):
        return file
    content = json.loads(file.content) if file.name in (ADAPTER_FILES[0], FILE) else {}
    if file.name == ADAPTER_FILES[0]:
        content["revision"] = revision
    elif file.name == FILE:
        content["base"]["revision"] = revision
    else:
        return file
    return PushFile(file.name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _commit(
    api: HfApi, repo_id: str, files: tuple[PushFile, ...], private: bool, arrived: str = ""
) -> str:
    operations = [
        CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.content) for file in files
    ]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        _check_who_sees(repo_id, private, bool(api.repo_info(repo_id).private))
        done = api.create_commit(repo_id, operations, commit_message="Push a FairTune run")
    except _NETWORK_ERRORS as error:
        raise ConnectionError(
            f"The push to {repo_id} did not end ({type(error).__name__}: {error}). The files of a "
            f"push come in one commit: that repository has all of them or none.{arrived} "
            f"{_what_to_do(error)}"
        ) from error
    return str(done.oid)


def _check_who_sees(repo_id: str, private: bool, is_private: bool) -> None:
    """Refuse a repository that was there and is seen by others than was asked for.

    Raises:
        ValueError: It is.
    """
    if private and not is_private:
        raise ValueError(
            f"--public was not given, but {repo_id} exists and is public. Say --public, make it private on "
            "the Hub first, or push to another name."
        )
    if not private and is_private:
        raise ValueError(
            f"--public was asked, but {repo_id} exists and is private. Leave --public out, or make it public "
            "on the Hub first."
        )


def _what_to_do(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    # To a token without rights on it, a repository that was just made does not exist.
    hidden = isinstance(error, LocalTokenNotFoundError | RepositoryNotFoundError)
    if hidden or status in (401, 403):
        return (
            "The Hub refused the access token: log in with `hf auth login`, and check that the "
            "token may write and that you may push to this organisation."
        )
    return "Run the same command again: large files that arrived are not sent twice."
