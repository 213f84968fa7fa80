"""The package as a whole: what importing costs, who imports whom, public names, README."""

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import sk_asd

PACKAGE = Path(sk_asd.__file__).parent
ROOT = Path(__file__).parents[1]
FUNCTIONS = ["save", "load", "export_onnx"]
ROOMS = [name for name in sk_asd.__all__ if name not in ("__version__", "utils", *FUNCTIONS)]

# Each room may import those of the levels before its own.
LEVELS = [
    {"utils"},
    {"datasets", "networks"},
    {"features", "metrics", "model_selection"},
    {"embedders", "detectors"},
    {"ensemble"},
    {"domains"},
    {"systems", "decisions"},
    {"inspection", "watching", "persistence", "export"},
    {"evaluation"},
    {"cli"},
]


def imports(path):
    """Dotted names that a module imports at whatever depth; ``from a.b import c`` gives a.b.c."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(room):
    found = sorted((PACKAGE / room).glob("**/*.py"))
    assert found, f"no modules in {room}"
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import sk_asd",
        "from sk_asd.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
    ids=["import", "help"],
)
def test_heavy_libraries_are_not_loaded_early(code):
    heavy = ("torch", "librosa", "skorch", "sklearn", "pandas", "xarray", "matplotlib")
    code += f"\nimport sys\nprint([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_all_rooms_have_a_level():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set().union(*LEVELS)


@pytest.mark.parametrize("room", sorted(set().union(*LEVELS)))
def test_imports_follow_the_order_of_rooms(room):
    level = next(i for i, rooms in enumerate(LEVELS) if room in rooms)
    allowed = {room}.union(*LEVELS[:level])
    for path in modules(room):
        for name in imports(path):
            package, _, rest = name.partition(".")
            if package == "sk_asd" and not rest.startswith("_"):
                assert rest.split(".")[0] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"


def test_modules_at_the_root_know_utils_alone():
    roots = {path for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__")}
    assert {path.stem for path in roots} == {"_version", "_versions"}
    for path in roots:
        for name in imports(path):
            assert not name.startswith("sk_asd") or name.startswith(
                ("sk_asd.utils", "sk_asd._version")
            ), path


def test_no_module_imports_itself_in_a_circle():
    """By the imports at the top of modules, or in them at whatever depth within one room."""
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__"
    }
    graph = {}
    for module, path in names.items():
        found = {name if name in names else name.rpartition(".")[0] for name in imports(path)}
        graph[module] = found.intersection(names) - {module}
    graphlib.TopologicalSorter(graph).prepare()  # raises where there is a circle


def test_networks_know_torch_alone():
    """And zuko, whose flows are networks too."""
    known = {"torch", "zuko", *sys.stdlib_module_names}
    for path in modules("networks"):
        for name in imports(path):
            assert name.startswith("sk_asd.networks") or name.partition(".")[0] in known, (
                f"{path.relative_to(PACKAGE)} imports {name}"
            )


def test_private_names_of_scikit_learn_are_imported_in_one_module():
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.glob("**/*.py")
        for name in imports(path)
        if name.startswith("sklearn.") and re.search(r"\._(?!_)", name)
    }
    assert users == {str(Path("utils", "_sklearn.py"))}


@pytest.mark.parametrize("name", ROOMS)
def test_public_names(name):
    module = importlib.import_module(f"sk_asd.{name}")
    assert inspect.getdoc(module)
    own = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    homes = {k: getattr(v, "__module__", None) or "" for k, v in own.items()}
    defined = {k for k, home in homes.items() if home.startswith(module.__name__)}
    assert defined <= set(module.__all__)
    for key in module.__all__:
        thing = getattr(module, key)
        assert inspect.getdoc(thing), f"{key} has no docstring"
        for method, value in inspect.getmembers(thing, inspect.isfunction):
            if not method.startswith("_") and value.__module__.startswith("sk_asd"):
                assert inspect.getdoc(value), f"{key}.{method} has no docstring"


def test_functions_of_the_package():
    assert set(sk_asd.__all__) - {"__version__", "utils", *ROOMS} == set(FUNCTIONS)
    assert all(inspect.getdoc(getattr(sk_asd, name)) for name in FUNCTIONS)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sk_asd.nothing  # noqa: B018


def test_version():
    assert sk_asd.__version__ == version("sk_asd")


def test_every_requirement_is_pinned():
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    pinned = {_normal(name) for name in re.findall(r"^([\w.-]+)==\S+$", pins, re.MULTILINE)}
    needed = {_normal(re.match(r"[\w.-]+", line)[0]) for line in requires("sk_asd")}
    assert needed <= pinned


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_quick_start_of_the_readme(capsys, tmp_path, monkeypatch):
    readme = (ROOT / "README.rst").read_text("utf-8")
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", readme)
    names = {}
    exec(inspect.cleandoc(blocks[0]), names)
    table = capsys.readouterr().out
    assert re.search(r"fan +00 +\d\.\d+", table)
    assert re.search(r"total +hmean +\d\.\d+", table)
    # In the field.
    monkeypatch.chdir(tmp_path)
    exec(inspect.cleandoc(blocks[-1]), names)
    assert [path.name for path in tmp_path.iterdir()] == ["machines.skasd"]
    names["events"] += names["scorer"].finish()
    assert [event.type for event in names["events"]] == ["score"]
