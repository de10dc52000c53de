"""How estimators look in a notebook."""

from __future__ import annotations

from inspect import isclass
from typing import Any


class DocumentedMixin:
    """Shows each parameter's documentation in the HTML representation.

    scikit-learn shows it beside the link to a class's page. There is no page, so the link leads
    nowhere, but the text is there. Strategies are shown in boxes of their own, as scikit-learn
    shows estimators within estimators; it leaves those without ``fit`` out, and lists their
    parameters bare.
    """

    _doc_link_module = "diffusion_classifier"
    _doc_link_template = "#{estimator_name}"

    def _sk_visual_block_(self) -> Any:
        from sklearn.utils._repr_html.estimator import _VisualBlock

        estimator: Any = self
        parts = {
            name: value
            for name, value in estimator.get_params(deep=False).items()
            if hasattr(value, "get_params") and not isclass(value)
        }
        if not parts:
            return _VisualBlock("single", self, names=type(self).__name__, name_details=str(self))
        return _VisualBlock(
            "parallel",
            list(parts.values()),
            names=[f"{name}: {type(part).__name__}" for name, part in parts.items()],
            name_details=[str(part) for part in parts.values()],
        )

    def _get_params_html(self, deep: bool = True, doc_link: str = "") -> Any:
        parent: Any = super()
        return parent._get_params_html(False, doc_link)


class PlainText(str):
    """Text that is printed without quotes."""

    def __repr__(self) -> str:
        return str(self)
