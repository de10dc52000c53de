"""How estimators look in a notebook."""

from __future__ import annotations


class DocumentedMixin:
    """Shows each parameter's documentation in the HTML representation.

    scikit-learn shows it beside the link to a class's page. There is no page, so the link leads
    nowhere, but the text is there.
    """

    _doc_link_module = "diffusion_classifier"
    _doc_link_template = "#{estimator_name}"


class PlainText(str):
    """Text that is printed without quotes."""

    def __repr__(self) -> str:
        return str(self)
