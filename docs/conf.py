"""The site: ``make docs`` builds it into build/docs, without a network and without warnings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks, on machines with other work
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a page that asked for a download would not be one

from diffusion_classifier import __version__  # noqa: E402

project = "diffusion_classifier"
copyright = "the diffusion_classifier developers"
version = release = __version__
repository_url = "https://github.com/diffusion-classifier/diffusion_classifier"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "api_pages",
    "mathml",
    "relative_links",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "gallery/*.ipynb", "gallery/*.py", "**sg_execution_times.rst"]
nitpicky = True
nitpick_ignore_regex = [
    # Other projects' names: the build fetches no list of theirs.
    (r"py:.*", r"(?!diffusion_classifier).*"),
    # Modules and names that are not public, which have no page.
    (r"py:(mod|attr|meth|func|data|obj)", r".*"),
]

# ------------------------------------------------------------------ text

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
suppress_warnings = ["config.cache"]

# ------------------------------------------------------------------- API

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections have them, in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# --------------------------------------------------------------- gallery

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples" / "gallery"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 1000,
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
}

# ------------------------------------------------------------------ HTML

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "diffusion_classifier"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "icon_links": [{"name": "Source", "url": repository_url, "icon": "fa-brands fa-github"}],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
