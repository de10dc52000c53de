"""How estimators look in a notebook."""

from __future__ import annotations


class DocumentedMixin:
    """Show each parameter's documentation in the HTML representation.

    scikit-learn shows a parameter's text only beside a link to the class's page, so a link is
    given that leads nowhere. The two attributes are its documented interface for other packages.
    """

    _doc_link_module = "diffusion_classifier"
    _doc_link_template = "#{estimator_name}"


class PlainText(str):
    """Text that is printed without quotes."""

    def __repr__(self) -> str:
        return str(self)
