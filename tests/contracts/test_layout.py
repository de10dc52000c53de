"""The rooms of the package: imports point downward, without a circle, and no file is too long."""

import ast
from pathlib import Path

import pytest

import diffusion_classifier

PACKAGE = Path(diffusion_classifier.__file__).parent
# From the ground up. A room imports from its own floor and those below it, never from above.
FLOORS = (
    ("errors",),
    ("utils",),
    ("noise",),
    ("datasets", "images", "backends", "learner", "testing"),
    ("samplers", "pruners", "scoring"),
    ("strategies", "race", "shortlist", "callbacks"),
    ("records",),
    ("store",),
    ("estimator",),
    ("classifier",),
    ("explaining",),
    ("plotting",),
    ("matching", "evaluation"),
    ("distributed", "hub", "cli", "demo", "__main__"),
)
# One line each, at the paths that earlier documentation showed.
ALIASES = {
    "backends.family", "backends.mmdit", "calibration", "importance", "racing", "schedule",
    "weighting",
}  # fmt: skip
MOST_LINES = 400
MOST_FILES = 12


def name_of(path):
    """Dotted name of a file below the package; a folder's face is the folder itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FACES = {name_of(path) for path in PACKAGE.rglob("__init__.py")}


def imported(name, path):
    """Names of the files that a file imports, also inside functions and for type checkers."""
    package = ["diffusion_classifier", *name.split(".")] if name else ["diffusion_classifier"]
    if name not in FACES:
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            targets = [f"{module}.{alias.name}" for alias in node.names] + [module]
        elif isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            continue
        for target in targets:
            inside = target.removeprefix("diffusion_classifier").removeprefix(".")
            if target.startswith("diffusion_classifier") and inside in FILES and inside != name:
                found.add(inside)
                if inside == targets[0].removeprefix("diffusion_classifier."):
                    break  # a file and not a name of its folder's face
    return found


IMPORTS = {name: imported(name, path) for name, path in FILES.items()}


def floor(name):
    """Number of the floor that a file is on; None for the package's own face and aliases."""
    if name in ALIASES or name in ("", "_version"):
        return None
    (number,) = [n for n, rooms in enumerate(FLOORS) if name.split(".")[0] in rooms]
    return number


def test_every_room_is_on_a_floor():
    assert all(floor(name) is not None for name in set(FILES) - ALIASES - {"", "_version"})


@pytest.mark.parametrize("name", sorted(set(FILES) - ALIASES - {"", "_version"}))
def test_imports_point_downward(name):
    upward = {
        other
        for other in IMPORTS[name]
        if other != "_version" and (floor(other) is None or floor(other) > floor(name))
    }
    assert not upward, f"{name} imports {upward} from a floor above it"


def reachable(start, arrows):
    """All that can be reached from a name, itself only through a circle."""
    seen, queue = set(), list(arrows[start])
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            queue += arrows[name]
    return seen


def test_no_file_imports_itself_through_others():
    """Faces count too: what a folder's face imports, everybody who imports the face imports."""
    circles = {name for name in FILES if name in reachable(name, IMPORTS)}
    assert not circles


def test_no_folder_imports_itself_through_others():
    """Rooms of the top floor plan, folder by folder."""
    rooms = {name: name.split(".")[0] for name in FILES if name and name not in ALIASES}
    arrows = {room: set() for room in rooms.values()}
    for name, room in rooms.items():
        arrows[room] |= {rooms[other] for other in IMPORTS[name] if other in rooms} - {room}
    assert not {room for room in arrows if room in reachable(room, arrows)}


def test_files_and_folders_stay_small():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}
    folders = [path.parent for name, path in FILES.items() if name not in ALIASES]
    assert {str(f): folders.count(f) for f in folders if folders.count(f) - 1 > MOST_FILES} == {}


def test_every_folder_has_a_face():
    folders = {path.parent for path in FILES.values()}
    for folder in folders:
        face = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(face)), f"{folder.name} does not say what it is"
        assert "__all__" in face


TESTS = Path(__file__).parents[1]


def test_no_test_file_imports_another():
    """What several need is in ``tests/support`` or a fixture of ``tests/conftest.py``."""
    found = {}
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{'.' * node.level}{node.module or ''}"]
                if node.module == "tests":
                    names = [f"tests.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith(("tests", ".")) and not name.startswith("tests.support"):
                    found[path.name] = name
    assert found == {}


def test_tests_mirror_the_folders():
    """A folder of tests is a room of the package, or holds what crosses rooms."""
    rooms = {path.parent.relative_to(PACKAGE) for path in FILES.values()}
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    assert folders - rooms == {Path("contracts")}
