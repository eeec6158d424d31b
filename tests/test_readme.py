"""What the README says exists, exists."""

import json
import re
from pathlib import Path

import pytest

from job.config.schema import Config
from job.errors import Exit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def config_rows() -> set[str]:
    """The config table as it has to stand, a line a key."""
    rows = set()
    for name, field in Config.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {name: field})
        prefix = f"{name}." if keys is not None and name not in keys else ""
        for key, inner in keys.items():
            default = json.dumps(inner.default, ensure_ascii=False).replace("null", "not set")
            rows.add(f"| `{prefix}{key}` | {default} | {inner.description} |")
    return rows


def test_the_config_table_is_the_configs() -> None:
    table = README.split("## Config")[1].split("\n## ")[0]
    found = set(re.findall(r"^\| `.*\|$", table, re.MULTILINE))
    assert found == config_rows()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", README, re.MULTILINE))
    assert {"demo", "test", "help"} <= named
    assert named <= targets


def test_commands_exist() -> None:
    from typer.main import get_command

    from job.__main__ import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"-m job ([a-z]+)", README)) <= commands
    table = README.split("## Your own run")[1].split("\n## ")[0]
    assert commands == set(re.findall(r"^\| `([a-z]+)[ `]", table, re.MULTILINE))


def test_exit_codes_are_the_codes() -> None:
    table = README.split("## Exit codes")[1].split("\n## ")[0]
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
    section = README.split("## Serve")[1].split("\n## ")[0]
    assert all(row in section for row in rows), [row for row in rows if row not in section]
    assert len(re.findall(r"^\|[^|]*\| `KICKOFF_", section, re.MULTILINE)) == len(rows)


def test_the_endpoints_table_is_the_servers() -> None:
    from serve.http.routes import router

    section = README.split("## Serve")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(GET|POST) (\S+)`", section, re.MULTILINE))
    there = {(method, route.path) for route in router.routes for method in route.methods}  # type: ignore[attr-defined]
    assert named == there | {("GET", "/docs")}


def test_the_overlays_and_components_are_those_of_the_folder() -> None:
    section = README.split("## Kubernetes")[1].split("\n## ")[0]
    overlays, components = (
        set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) for table in section.split("| component |")
    )
    assert overlays == {file.parent.name for file in ROOT.glob("k8s/*/kustomization.yaml")}
    inside = {"cpu", "restart", "torchrun"}  # what overlays bring along
    assert components == {file.parent.name for file in ROOT.glob("k8s/components/*/kustomization.yaml")} - inside
