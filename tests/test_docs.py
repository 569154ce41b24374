"""The docs say what is there: words in the glossary; commands, targets, settings and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNNAMED = {"AuditEntry", "NoiseFloor"}  # an audit entry explains itself; the glossary spells the other in two words


def glossary() -> str:
    return (ROOT / "docs" / "GLOSSARY.md").read_text()


@pytest.mark.parametrize("model", [model.__name__ for model in apps.get_app_config("research").get_models()])
def test_every_model_stands_in_the_glossary(model: str) -> None:
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", model).lower()
    assert words in glossary().lower() or model in UNNAMED


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_and_links_of_the_docs_exist(path: Path) -> None:
    text = path.read_text()
    commands = {name for name in re.findall(r"manage\.py ([a-z_]+)", text)}
    assert commands <= set(get_commands()), commands - set(get_commands())
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)), targets
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / link).exists(), link
    for place in re.findall(r"`((?:research|runners|benchmarks|tests)/[\w./]+)`", text):
        assert (ROOT / place).exists(), place


def test_no_setting_is_known_but_unread() -> None:
    settings = (ROOT / "recursive_web" / "settings.py").read_text()
    known = re.search(r"KNOWN = \{([^}]*)\}", settings)
    assert known
    for name in re.findall(r"LAB_\w+", known.group(1)):
        assert settings.count(f'"{name}"') >= 2, f"{name} is known and never read"
