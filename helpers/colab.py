"""The first cell of every chapter, and the one place that sets the course's address.

    python -m helpers.colab https://github.com/you/course    # badges and first cells
    python -m helpers.colab --none                           # none again

On Google Colab and Kaggle the first cell installs what is missing or too old, elsewhere nothing.
Only the standard library is imported here: this runs before anything else is installed.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from helpers import ROOT, CourseError

# what shapes an answer gets the course's version, everything else that is there stays: torch for
# the GPU driver, what is built against torch and numpy, and the packages of the running kernel
UPGRADE = ("transformers", "peft", "accelerate", "datasets")
SKIP = ("jupyterlab",)  # the page itself is the lab there
TESTS = "# what checks the course"  # the line of requirements.txt from which on nothing is needed
HOSTS = {"COLAB_RELEASE_TAG": "Google Colab", "COLAB_GPU": "Google Colab"}
HOSTS |= {"KAGGLE_KERNEL_RUN_TYPE": "Kaggle"}


def host() -> str:
    """`Google Colab`, `Kaggle`, or nothing on a machine of one's own."""
    return next((name for mark, name in HOSTS.items() if mark in os.environ), "")


def pinned(text: str = "") -> dict[str, str]:
    """{package: version} of requirements.txt, or of the lines in `text`, for this system."""
    text = text or (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+) *(?:; *([^#\n]+))?", text, re.M)
    return {
        name: version
        for name, version, condition in lines
        if sys.platform != "win32" or 'sys_platform != "win32"' not in condition
    }


def tried() -> dict[str, str]:
    """{package: version} of the Colab machine that the course was run on: data/colab."""
    return pinned((ROOT / "data/colab/versions.txt").read_text(encoding="utf-8"))


def packages_to_install(installed: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(what to install, what stays), {package: version} each, where `installed` is there."""
    here = {_plain(name): version for name, version in installed.items()}
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    wanted, stays = {}, {}
    for name, version in pinned(requirements.split(TESTS)[0]).items():
        present = here.get(_plain(name))
        if present and name not in UPGRADE:
            stays[name] = present
        elif present != version and name not in SKIP:
            wanted[name] = version
    return wanted, stays


def prepare(run: Callable = subprocess.run) -> None:
    """Install on Colab or Kaggle what is missing or too old; elsewhere nothing happens.

    Raises CourseError where pip fails, and where a package was in use while it was replaced.
    """
    if not host():
        return
    before = _installed()
    wanted, stays = packages_to_install(before)
    pip = [sys.executable, "-m", "pip"]
    if "torchao" in before:  # its old version makes PEFT refuse a plain LoRA
        run([*pip, "uninstall", "-q", "-y", "torchao"], check=True)
    if not wanted:
        return
    limits = Path(tempfile.gettempdir()) / "course-constraints.txt"
    limits.write_text("\n".join(_lines(stays)) + "\n", encoding="utf-8")
    print(f"Installing {', '.join(_lines(wanted))} ...", flush=True)
    if run([*pip, "install", "-q", "-c", str(limits), *_lines(wanted)]).returncode:
        cure = "its words stand above; check the network (on Kaggle: Internet on), run again"
        raise CourseError(f"pip could not install what {host()} lacks: {cure}.")
    importlib.invalidate_caches()
    in_use = _in_use(before)
    if in_use:
        what = f"{', '.join(in_use)} had been imported before this cell replaced them"
        raise CourseError(f"{what}: restart the session once (Runtime, Restart session), run all.")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(packages: Mapping[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in packages.items()]


def _installed() -> dict[str, str]:
    return {_plain(d.metadata["Name"]): d.version for d in metadata.distributions()}


def _in_use(before: Mapping[str, str]) -> list[str]:
    """Packages with another version than `before` whose old modules this process holds."""
    after = _installed()
    in_use = set()
    for module, packages in metadata.packages_distributions().items():
        for package in map(_plain, packages):
            replaced = before.get(package, after.get(package)) != after.get(package)
            if replaced and module in sys.modules:
                in_use.add(package)
    return sorted(in_use)


# The course's address -------------------------------------------------------------------------

ADDRESS = re.compile(r"(?:https://github\.com/|git@github\.com:)([\w.-]+/[\w.-]+?)(?:\.git)?/?")
URLS = re.compile(r'\[project\.urls\]\nRepository = "([^"]*)"\n\n')
README_BADGE = re.compile(r"(<!-- colab -->\n).*?(<!-- /colab -->)", re.S)
CHAPTER_BADGE = re.compile(r"^\[!\[Open in Colab\].*\n\n", re.M)
FIRST_CELL = re.compile(r'^REPOSITORY = ".*?"', re.M)


def repository(root: Path = ROOT) -> str:
    """The address that pyproject.toml names, empty where it names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def with_repository(address: str, root: Path = ROOT) -> dict[Path, str]:
    """{path: text} of every file that names the address, as they are with this one.

    Raises CourseError where it is no address of a GitHub repository; an empty one takes all out.
    """
    if address:
        match = ADDRESS.fullmatch(address)
        if not match:
            known = "https://github.com/OWNER/NAME, the only kind that Colab opens"
            raise CourseError(f"{address!r} is no address like {known}.")
        address = f"https://github.com/{match[1]}"
    project = root / "pyproject.toml"
    text = URLS.sub("", project.read_text(encoding="utf-8"))
    if address:
        urls = f'[project.urls]\nRepository = "{address}"\n\n'
        text = text.replace("[tool.setuptools.dynamic]", f"{urls}[tool.setuptools.dynamic]")
    texts = {project: text}
    chapters = sorted((root / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
    for path in chapters:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        head, setup = notebook["cells"][:2]
        title = CHAPTER_BADGE.sub("", "".join(head["source"]))
        if address:
            title = title.replace("\n\n", f"\n\n{_badge(address, path.name)}\n\n", 1)
        head["source"] = title.splitlines(keepends=True)
        code = FIRST_CELL.sub(f'REPOSITORY = "{address}"', "".join(setup["source"]))
        setup["source"] = code.splitlines(keepends=True)
        texts[path] = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    readme = root / "README.md"
    badge = f"{_badge(address, chapters[0].name)}\n" if address else ""
    page = readme.read_text(encoding="utf-8")
    texts[readme] = README_BADGE.sub(lambda match: match[1] + badge + match[2], page)
    return texts


def _badge(address: str, name: str) -> str:
    page = f"{address.removeprefix('https://')}/blob/main/notebooks/{name}"
    colab = f"https://colab.research.google.com/{page.replace('github.com', 'github', 1)}"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://{page}"
    second = "https://kaggle.com/static/images/open-in-kaggle.svg"
    return f"[![Open in Colab]({picture})]({colab}) [![Open in Kaggle]({second})]({kaggle})"


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        print(f"The address now: {repository() or 'none'}")
        return 0
    try:
        texts = with_repository("" if arguments == ["--none"] else arguments[0])
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="")
    print(f"The address is now: {repository() or 'none'}. Commit the changed files.")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
