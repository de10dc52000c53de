r"""Formulas as MathML, which browsers draw themselves: no script, no font, nothing to fetch."""

from __future__ import annotations

from docutils.utils.math import wrap_math_code
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def visit_inline(self, node) -> None:
    self.body.append(tex2mathml(node.astext()))
    raise_skip()


def visit_block(self, node) -> None:
    code = wrap_math_code(node.astext(), as_block=True)
    formula = tex2mathml(code, as_block=True)
    self.body.append(f'<div class="math">{formula}</div>\n')
    raise_skip()


def raise_skip() -> None:
    from docutils import nodes

    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
