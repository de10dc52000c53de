"""Where a saved classifier gets its network from, and whether others can get it there too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..backends.loading.origin import EMBEDDED, HUB_ID
from ..estimator.saving.files import STATE_FILE, read_files, refusing
from ..estimator.saving.format import BACKEND
from ..utils.constraints import check_entries

FILES = (STATE_FILE, "tensors.safetensors")  # all that is uploaded and downloaded


class Network(NamedTuple):
    """The network of a saved classifier.

    Attributes
    ----------
    kind : {"embedded", "hub", "folder", "memory", "saved"}
        "embedded" comes with this package, "hub" with a Hub id; a "folder" is one of the machine
        that saved the classifier. "memory" has no place at all. "saved" is a backend without a
        network, such as a Gaussian one, which the saved files hold.
    name : str
        Hub id, path or name of a class.
    revision : str or None
        Of the Hub id.
    """

    kind: Literal["embedded", "hub", "folder", "memory", "saved"]
    name: str
    revision: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether others have to be given the network."""
        return self.kind in ("folder", "memory")


def network_of(folder: Path) -> Network:
    """Return where the classifier saved in a folder gets its network from.

    Raises
    ------
    InputFileError
        If the folder does not hold what ``save`` writes.
    """
    saved = read_files(folder)[0]["backend"]
    with refusing(folder):
        check_entries("backend", saved, BACKEND)
    kind, value = saved["kind"], saved["value"]
    if kind == "memory":
        return Network("memory", str(value))
    if kind == "parameters":
        return Network("saved", _text(value, "class"))
    origin: Mapping[str, Any] = value if isinstance(value, dict) else {"name": value}
    name, revision = origin.get("name"), origin.get("revision")
    if name is None or name == EMBEDDED:
        return Network("embedded", EMBEDDED)
    if not HUB_ID.fullmatch(str(name)):
        return Network("folder", str(name))
    return Network("hub", str(name), None if revision is None else str(revision))


def _text(value: Any, key: str) -> str:
    return str(value.get(key)) if isinstance(value, dict) else str(value)
