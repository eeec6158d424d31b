"""What README and the handbook say exists, exists: keys, targets, commands, settings, endpoints, files, links."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from checkout import ROOT
from handbook import DOCS, PAGES, inline, links, section

from job.config.schema import Config
from job.errors import Exit

PAGE = pytest.mark.parametrize("page", PAGES)
FOLDERS = ("job", "serve", "bench", "tests", "k8s", "examples", "docs")


def test_the_generated_pages_are_up_to_date() -> None:
    """`make docs` writes them anew."""
    command = "import json, runpy; print(json.dumps(runpy.run_path('docs/generate.py')['pages']()))"
    made = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    for name, text in json.loads(made.stdout).items():
        assert text == PAGES[name], f"{name}: run make docs"


def test_the_config_page_has_every_key() -> None:
    shown = set(re.findall(r"^\| `([a-z_.]+)` \|", PAGES["config.md"], re.MULTILINE))
    for name, field in Config.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        assert shown >= ({name} if keys is None else {f"{name}.{key}" for key in keys})


@PAGE
def test_config_keys_on_the_pages_exist(page: str) -> None:
    sections = {name: getattr(field.annotation, "model_fields", None) for name, field in Config.model_fields.items()}
    for code in inline(page):
        found = re.fullmatch(r"([a-z]+)\.(?!safetensors|json)([a-z_]+)(=.*)?", code)
        if found and sections.get(found[1]) is not None:
            assert found[2] in sections[found[1]], code


@PAGE
def test_files_on_the_pages_exist(page: str) -> None:
    for code in inline(page):
        path = re.fullmatch(rf"({'|'.join(FOLDERS)})/[a-z0-9_./*-]*", code)
        if path and "mine" not in code:
            assert list(ROOT.glob(code.rstrip("/"))), f"{page} names {code}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_have_targets(page: str) -> None:
    """Of the other pages mkdocs checks them, in `make check`."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        if not link.startswith("http"):
            assert (ROOT / path).exists(), link
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in headings}


def test_the_readme_links_every_page() -> None:
    assert {f"docs/{path.name}" for path in DOCS.glob("*.md")} - {"docs/index.md"} <= set(links("README.md"))


@pytest.mark.parametrize("page, most", [("README.md", 200), ("CONTRIBUTING.md", 100)])
def test_pages_for_a_first_look_are_short(page: str, most: int) -> None:
    assert len(PAGES[page].splitlines()) <= most


class _Loaded(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag in ("script", "img", "link", "iframe") and values.get("rel") != "canonical":
            self.found += [value for name in ("src", "href") if (value := values.get(name))]


def test_the_site_builds_and_needs_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) >= len(list(DOCS.glob("*.md")))
    for page in pages:
        reader = _Loaded()
        reader.feed(page.read_text())
        assert not [url for url in reader.found if re.match(r"(https?:)?//", url)], page.name


def test_the_command_table_is_the_commands() -> None:
    from typer.main import get_command

    from job.__main__ import app

    table = section("quickstart.md", "All commands")
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert commands == set(re.findall(r"^\| `([a-z]+)[ `]", table, re.MULTILINE))


def test_exit_codes_are_the_codes() -> None:
    table = section("troubleshooting.md", "Exit codes")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == {int(code) for code in Exit}


@pytest.mark.parametrize("name", ["offline.yaml", "config.yaml"])
def test_examples_are_valid_configs(name: str) -> None:
    from job.config.read import load

    config = load(ROOT / "examples" / "soccer" / name)
    assert config.dataset.file is not None and (ROOT / config.dataset.file).exists()
    assert config.dataset.test is not None and (ROOT / config.dataset.test).exists()


def test_the_reworded_questions_are_not_trained() -> None:
    rows = {
        name: json.loads((ROOT / "examples" / "soccer" / f"{name}.json").read_text())
        for name in ("dataset", "reworded")
    }
    asked = {row["question"].casefold() for row in rows["dataset"]}
    answers = {row["answer"] for row in rows["dataset"]}
    assert len(rows["dataset"]) >= 300
    assert len(rows["reworded"]) >= 120
    assert not [row for row in rows["reworded"] if row["question"].casefold() in asked]
    assert not [row for row in rows["reworded"] if row["answer"] not in answers]


def test_the_settings_table_is_the_servers() -> None:
    from typer.main import get_command

    from serve.__main__ import KEY, app

    rows = {f"| | `{KEY}` | not set "}
    for option in get_command(app).params:
        name = "MODEL" if option.param_type_name == "argument" else f"--{(option.name or '').replace('_', '-')}"
        default = getattr(option.default, "value", option.default)
        shown = "" if name == "MODEL" else "not set" if default is None else default
        rows.add(f"| `{name}` | `{option.envvar}` | {shown} | {getattr(option, 'help', '')} |")  # type: ignore[attr-defined]
    table = section("serving.md", "Settings")
    assert all(row in table for row in rows), [row for row in rows if row not in table]
    assert len(re.findall(r"^\|[^|]*\| `KICKOFF_", table, re.MULTILINE)) == len(rows)


def test_the_endpoints_table_is_the_servers() -> None:
    from serve.http.routes import router

    named = set(re.findall(r"^\| `(GET|POST) (\S+)`", section("serving.md", "Endpoints"), re.MULTILINE))
    there = {(method, route.path) for route in router.routes for method in route.methods}  # type: ignore[attr-defined]
    assert named == there | {("GET", "/docs")}


def test_the_overlays_and_components_are_those_of_the_folder() -> None:
    overlays, components = (
        set(re.findall(r"^\| `([a-z-]+)` \|", section("kubernetes.md", name), re.MULTILINE))
        for name in ("Overlays", "Components")
    )
    assert overlays == {file.parent.name for file in ROOT.glob("k8s/*/kustomization.yaml")}
    inside = {"cpu", "restart", "torchrun"}  # what overlays bring along
    assert components == {file.parent.name for file in ROOT.glob("k8s/components/*/kustomization.yaml")} - inside
