"""The demo: a page in the browser on which a picture's race is watched.

``serve`` starts it, as ``diffusion-classifier demo`` does; ``make_page`` is the page alone, to be
launched elsewhere. It needs gradio and matplotlib, which the extra ``demo`` installs.
"""

from .limits import Limits
from .page import make_page
from .server import serve

__all__ = ["Limits", "make_page", "serve"]
