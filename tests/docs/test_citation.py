"""CITATION.cff names the same version as the package."""

from __future__ import annotations

import pytest
import yaml

import iwlora
from documentation import ROOT

pytestmark = pytest.mark.quick


def test_the_version_is_that_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == iwlora.__version__
    assert citation["license"] == "Apache-2.0"


def test_the_templates_for_issues_are_valid_yaml() -> None:
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(templates) == 3
    for template in templates:
        fields = yaml.safe_load(template.read_text(encoding="utf-8"))
        assert template.name == "config.yml" or {"name", "description", "body"} <= set(fields)
