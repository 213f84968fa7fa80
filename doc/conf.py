"""Settings of the documentation: ``sphinx-build doc doc/_build/html``."""

import inspect
import tomllib
from pathlib import Path

import sk_asd

project = "sk_asd"
copyright = "the sk_asd developers, BSD 3-Clause"
release = version = sk_asd.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "matplotlib.sphinxext.plot_directive",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "auto_examples/**.ipynb", "auto_examples/**.py"]
templates_path = ["_templates"]
default_role = "literal"

# The API reference follows from `__all__`.
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# The checks of `numpydoc lint`, here without allowances: what is public is complete, or -W fails.
_lint = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))
numpydoc_validation_checks = {*_lint["tool"]["numpydoc_validation"]["checks"]} - {"GL08"}

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sk_asd",),
    "download_all_examples": False,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
}

# Figures of the user guide, made by scripts beside it.
plot_html_show_source_link = False
plot_html_show_formats = False
plot_include_source = False
plot_formats = ["png"]
plot_basedir = str(Path(__file__).parent)

html_theme = "pydata_sphinx_theme"
html_title = f"sk_asd {release}"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}


def _skip_foreign(app, what, name, obj, skip, options):
    """Leave out what classes inherit from scikit-learn and torch: it is documented there."""
    function = obj.fget if isinstance(obj, property) else obj
    module = getattr(inspect.unwrap(function), "__module__", None) if callable(function) else None
    return True if module is not None and not module.startswith("sk_asd") else None


def setup(app):
    """Register what this file adds."""
    app.connect("autodoc-skip-member", _skip_foreign)
