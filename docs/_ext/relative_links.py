"""Pages link each other and the repository's files by relative paths, as GitHub reads them.

On the site, what lies outside ``docs/`` is a link to the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"(?<!\!)\]\((\.\.?/[^)#\s]+)(#[^)\s]*)?\)")


def resolve(app: Sphinx, docname: str, source: list[str]) -> None:
    docs, page = Path(app.srcdir), Path(app.env.doc2path(docname))

    def absolute(match: re.Match) -> str:
        target = Path(os.path.normpath(page.parent / match[1]))
        if target.is_relative_to(docs):
            return match[0]
        inside = target.relative_to(docs.parent).as_posix()
        kind = "tree" if target.is_dir() else "blob"
        return f"]({app.config.repository_url}/{kind}/main/{inside}{match[2] or ''})"

    source[0] = LINK.sub(absolute, source[0])


def setup(app: Sphinx) -> dict:
    app.add_config_value("repository_url", "", "env")
    app.connect("source-read", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
