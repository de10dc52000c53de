"""Errors of the Hub as errors of this package, which say what to do and hold no token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputFileError, InputTypeError, InputValueError, MissingFileError
from ..utils.display import short_repr

LOGIN = "log in with `hf auth login` or pass token="
# By name, subclasses before their base: which error is raised, and what it says.
KNOWN: dict[str, tuple[type[InputFileError], str]] = {
    "GatedRepoError": (
        InputFileError,
        "is gated: ask for access at https://huggingface.co/{repo_id}, then " + LOGIN + ".",
    ),
    "RepositoryNotFoundError": (
        MissingFileError,
        "is not on the Hub, or private: check the spelling; if it is private, " + LOGIN + ".",
    ),
    "RevisionNotFoundError": (
        MissingFileError,
        "has no revision {revision!r}: check revision=, a branch, tag or commit.",
    ),
    "LocalEntryNotFoundError": (
        MissingFileError,
        "is not in the cache at revision {revision!r}, and the Hub is not asked or cannot be "
        "reached: check the connection, local_files_only= and HF_HUB_OFFLINE.",
    ),
    "OfflineModeIsEnabled": (
        InputFileError,
        "is on the Hub, which is not asked while HF_HUB_OFFLINE is set: unset it.",
    ),
    "LocalTokenNotFoundError": (InputFileError, "needs a token: " + LOGIN + "."),
}


@contextmanager
def explained(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn errors of huggingface_hub into errors of this package.

    Raises
    ------
    MissingFileError
        If the repository or revision does not exist, or is not in the cache while offline.
    InputFileError
        If access is refused, the Hub cannot be reached, or it answers with an error.
    InputValueError
        If ``repo_id`` or the content of the card is not allowed.
    """
    from huggingface_hub import errors

    place = {"repo_id": repo_id, "revision": revision or "main"}
    try:
        yield
    except (errors.HFValidationError, errors.HTTPError, OSError, ValueError) as error:
        if isinstance(error, InputFileError | InputValueError):
            raise
        for name, (kind, advice) in KNOWN.items():
            if isinstance(error, getattr(errors, name)):
                raise kind(f"{repo_id} {advice.format(**place)}") from error
        if isinstance(error, errors.HFValidationError):
            raise InputValueError(
                f"repo_id={short_repr(repo_id)} is not the name of a repository, such as "
                f"'owner/name' ({_reason(error)})."
            ) from error
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = "check the connection and try again."
        if status in (401, 403):
            hint = "the token lacks the right to do this: " + LOGIN + " with one that has it."
        elif status == 412:
            hint = "others pushed to it in the meantime: look at what they changed, and push again."
        elif status is not None:
            hint = f"the Hub answered with status {status}; try again later."
        raise InputFileError(f"{repo_id}: {_reason(error)}; {hint}") from error


def check_repo_id(repo_id: object) -> None:
    """Raise unless a value can be the name of a repository.

    Raises
    ------
    InputTypeError
        If it is no string.
    InputValueError
        If it has other characters or parts than such names have.
    """
    from huggingface_hub.utils import validate_repo_id

    if not isinstance(repo_id, str):
        raise InputTypeError(
            f"repo_id={short_repr(repo_id)} must be a string, such as 'owner/name'."
        )
    with explained(repo_id):
        validate_repo_id(repo_id.replace("\n", " "))  # which some versions allow at the end


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
