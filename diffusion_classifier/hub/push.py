"""Upload a fitted classifier in one commit. Nothing is written to this machine but for a moment."""

from __future__ import annotations

from pathlib import Path

from .._version import __version__
from ..classifier import DiffusionClassifier
from ..errors import FolderInUseError, InputValueError
from ..evaluation import Evaluation
from ..utils.display import short_repr
from .card import made_card
from .contents import saved_files
from .network import FILES, Network
from .remote import explained

CARD = "README.md"
OWN = (*FILES, CARD)
# Files that people and the Hub add to any repository. All others belong to something else.
HARMLESS = (".gitattributes", ".gitignore", "LICENSE", "LICENSE.md", "LICENSE.txt")


def push_to_hub(
    clf: DiffusionClassifier,
    repo_id: str,
    *,
    evaluation: Evaluation | None = None,
    dataset: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    allow_missing_network: bool = False,
) -> str:
    """Upload a fitted classifier to the Hub, with a model card, in one commit.

    The repository gets what :meth:`DiffusionClassifier.save` writes, JSON and safetensors, and a
    ``README.md`` with the classes, prompts, settings and, if given, figures. Weights of the network
    are not uploaded, nor is the token. An earlier push to the same repository is replaced,
    including its card. If the upload fails, no commit is made; a repository that was created for
    it stays, empty.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted.
    repo_id : str
        Name of the repository, such as ``"owner/name"``. Created if it does not exist.
    evaluation : Evaluation, optional
        Figures for the card, of this classifier.
    dataset : str, optional
        Name of the images of ``evaluation``. With it, figures are also part of the card's metadata.
    private : bool, optional
        Whether a new repository is private. By default as its owner has set it, else public.
    token : str or bool, optional
        A token that may write. By default that of ``hf auth login``.
    revision : str, optional
        Branch to commit to, created if it does not exist. By default ``main``.
    commit_message : str, optional
        By default it says which version of this package saved the classifier.
    create_pr : bool, default=False
        Whether to open a pull request, instead of committing to the branch.
    allow_missing_network : bool, default=False
        Whether to upload a classifier whose network others cannot load: one of a local folder or
        made in memory. The files then hold the folder's path, and the card says what to pass.

    Returns
    -------
    str
        Address of the commit, or of the pull request.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If ``fit`` was not called.
    InputTypeError
        If ``clf`` is no ``DiffusionClassifier``, or has a parameter that ``save`` refuses.
    InputValueError
        If others could not load the network, the evaluation is of another classifier, or
        ``repo_id`` cannot be a repository.
    FolderInUseError
        If the repository holds other files, such as a model.
    InputFileError
        If access is refused, the Hub cannot be reached, or others pushed in the meantime.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.hub import push_to_hub
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["one", "two"])
    >>> push_to_hub(clf, "owner/one-or-two")  # doctest: +SKIP
    'https://huggingface.co/owner/one-or-two/commit/...'
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    contents, network = saved_files(clf)
    if not allow_missing_network:
        _check_places(clf, network)
    card = made_card(clf, network, repo_id, evaluation, dataset)
    contents[CARD] = str(card).encode("utf-8")
    api = HfApi(token=token, library_name="diffusion_classifier")
    with explained(repo_id, revision):
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        # of the commit that was read: a push by others in between is refused, not overwritten
        parent = api.repo_info(name, revision=revision).sha
        _check_repository(name, api.list_repo_files(name, revision=parent))
        done = api.create_commit(
            name,
            [CommitOperationAdd(path, contents[path]) for path in OWN],
            commit_message=commit_message or f"Saved with diffusion_classifier {__version__}",
            revision=revision,
            create_pr=create_pr,
            parent_commit=parent,
        )
    return str(done.pr_url or done.commit_url)


def _check_places(clf: DiffusionClassifier, network: Network) -> None:
    """Raise if others could not load the network, or the CLIP model of the shortlist."""
    what, name = "network", network.name
    where = "of a folder of this machine" if network.kind == "folder" else "made in memory"
    if not network.is_missing:
        what, name = "shortlist's model", getattr(clf.shortlist_, "path_or_id", "")
        where = "of a folder of this machine"
        path = Path(name).expanduser()
        if not name or not (path.is_absolute() or path.is_dir()):
            return
    raise InputValueError(
        f"the {what} ({short_repr(name)}) is {where}, so others could not load the classifier: "
        "fit it with a Hub id, or pass allow_missing_network=True if they will be given it."
    )


def _check_repository(repo_id: str, names: list[str]) -> None:
    """Raise if a repository holds anything that a push would mix with."""
    others = sorted(name for name in names if name not in (*OWN, *HARMLESS))
    if others:
        raise FolderInUseError(
            f"{repo_id} holds other files ({', '.join(map(short_repr, others[:3]))}); push to a "
            "repository, or a branch, of its own."
        )
