# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas in config/schema/ are those that the programs print, and the examples obey them."""
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("GATEHOUSE_BUILD", "build")
EXAMPLES = [("gatewayd", path) for path in sorted((ROOT / "config/domains").glob("*.json"))]
EXAMPLES += [("nlbd", ROOT / "config/nlb.json"), ("registryd", ROOT / "config/registry.json")]


@pytest.mark.parametrize("program", ["nlbd", "gatewayd", "registryd"])
def test_file_is_what_the_program_prints(program):
    printed = subprocess.run([BUILD / program, "--schema"], capture_output=True, check=True, timeout=10).stdout
    assert printed == (ROOT / f"config/schema/{program}.json").read_bytes(), "out of date: run make schema"


@pytest.mark.parametrize("program,example", EXAMPLES, ids=lambda value: getattr(value, "name", value))
def test_examples_obey_it(program, example):
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    schema = json.loads((ROOT / f"config/schema/{program}.json").read_text())
    validator.check_schema(schema)
    validator(schema).validate(json.loads(example.read_text()))
