#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration references docs/man/gatehouse-*.json.5 from config/schema/*.json.

usage: schema-to-man.py [--check]     --check: write nothing, exit 1 if a page is out of date
"""

import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATE = "November 24, 2026"

COMMON = """\
The file is one JSON object.
Unknown members are errors, and every mistake is reported with its path,
all of them in one run:
.Dl {program} -c FILE --check
.Pp
A member whose name begins with
.Ql //
is a comment.
Durations are integers with the unit at the end of the name:
.Ql _ms
or
.Ql _s .
A string
.Ql $env:NAME
is read from an environment variable,
.Ql $file:PATH
from a file
.Pq without the line end at its end ,
so that secrets need not be in the configuration.
Below,
.Ql []
stands for each item of an array and
.Ql NAME
for a name of your choice.
.Pp
On SIGHUP the file is read again.
Members that only a restart can change are then reported, and nothing changes.
"""

PAGES = {
    "gatewayd": (
        "gatehouse-gateway.json",
        "configuration of a gatehouse gateway",
        "describes one domain for\n.Xr gatewayd 8 :\nwhere it listens, whose tokens it accepts, "
        "which limits hold,\nand which services requests go to.",
        ["/etc/gatehouse/gateway.json", "/etc/gatehouse/DOMAIN.json"],
        ["gatewayd 8", "gatewayctl 1"],
    ),
    "nlbd": (
        "gatehouse-nlb.json",
        "configuration of the gatehouse load balancer",
        "tells\n.Xr nlbd 8\nwhich virtual IPs there are and which gateways stand behind each.",
        ["/etc/gatehouse/nlb.json"],
        ["nlbd 8", "nlbctl 1"],
    ),
    "registryd": (
        "gatehouse-registry.json",
        "configuration of the gatehouse service registry",
        "is read by\n.Xr registryd 8 .",
        ["/etc/gatehouse/registry.json"],
        ["registryd 8", "registryctl 1"],
    ),
}


def escape(text):
    """A line of text that no macro processor takes for anything else."""
    text = text.replace("\\", "\\e")
    return "\\&" + text if text[:1] in (".", "'") else text


def sentences(text):
    """Running text: each sentence begins a line, and no line is long."""
    lines = []
    for sentence in re.split(r"(?<=\.) (?=[A-Z0-9])", text.strip()):
        lines += textwrap.wrap(sentence, 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join(escape(line) for line in lines)


def word(value):
    return json.dumps(value, ensure_ascii=False)


def is_reserved(schema):
    return schema.get("type") == "null" or schema.get("maxItems") == 0


def type_of(schema):
    if "enum" in schema:
        return "one of " + ", ".join(word(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(type_of(choice) for choice in schema["anyOf"])
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    names = []
    for name in kinds:
        if name == "array":
            name = "array of " + type_of(schema["items"]).replace("string", "strings").replace(
                "object", "objects"
            )
        elif name == "object" and isinstance(schema.get("additionalProperties"), dict):
            inner = type_of(schema["additionalProperties"])
            name = "object, by name" if inner == "object" else f"object; values: {inner}"
        elif name == "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            name = f"integer, {low} to {high}" if high is not None else f"integer, at least {low}"
        elif name == "string" and "format" in schema:
            formats = {"ipv4": "IPv4", "ipv6": "IPv6 address", "date-time": "time (RFC 3339)"}
            name = formats[schema["format"]]
        names.append(name)
    return " or ".join(names)


def facts(schema, required):
    text = type_of(schema)
    if required:
        text += "; required"
    if "default" in schema:
        text += f"; default {word(schema['default'])}"
    return text + "."


def members(schema, path):
    """All members below, as (path, schema, whether required), depth first."""
    for name, member in schema.get("properties", {}).items():
        if name == "$schema":
            continue
        here = f"{path}.{name}" if path else name
        yield here, member, name in schema.get("required", [])
        yield from below(member, here)


def below(schema, path):
    if "properties" in schema:
        yield from members(schema, path)
    elif isinstance(schema.get("items"), dict) and "properties" in schema["items"]:
        yield from members(schema["items"], path + "[]")
    elif isinstance(schema.get("additionalProperties"), dict):
        inner = schema["additionalProperties"]
        if "properties" in inner:
            yield from members(inner, path + ".NAME")


def entry(path, schema, required):
    lines = [f'.It Va "{path}"']
    if "description" in schema:
        text = schema["description"]
        text = text[0].upper() + text[1:]
        lines.append(sentences(text if text.endswith(".") else text + "."))
    text = facts(schema, required)
    lines.append(sentences(text[0].upper() + text[1:]))
    return lines


def page(program, schema):
    name, purpose, text, files, related = PAGES[program]
    reserved, lines = [], []
    lines += ['.\\" SPDX-License-Identifier: Apache-2.0']
    lines += ['.\\" Written by scripts/schema-to-man.py from the schema; changes here are lost.']
    lines += [f".Dd {DATE}", f".Dt {name.upper()} 5", ".Os gatehouse", ".Sh NAME", f".Nm {name}"]
    lines += [f".Nd {purpose}", ".Sh DESCRIPTION", ".Nm", text, ".Pp"]
    lines += [COMMON.format(program=program).rstrip(), ".Sh MEMBERS"]
    top = {}
    for path, member, required in members(schema, ""):
        if is_reserved(member):
            reserved.append(path)
        else:
            top.setdefault(re.split(r"[.\[]", path)[0], []).append((path, member, required))
    simple = [group[0] for group in top.values() if len(group) == 1]
    if simple:
        lines.append(".Bl -tag -width Ds")
        for item in simple:
            lines += entry(*item)
        lines.append(".El")
    for first, group in top.items():
        if len(group) > 1:
            lines += [f".Ss {first}", ".Bl -tag -width Ds"]
            for item in group:
                lines += entry(*item)
            lines.append(".El")
    if reserved:
        lines += [".Sh RESERVED MEMBERS"]
        lines += ["Known to the format but not supported by this version: null, empty or absent."]
        lines += [".Bl -item -compact"]
        for path in reserved:
            lines += [".It", f'.Va "{path}"']
        lines += [".El"]
    lines += [".Sh FILES", ".Bl -tag -width Ds -compact"]
    for path in files:
        lines += [f".It Pa {path}"]
    lines += [".It Pa /usr/share/doc/gatehouse/examples", "Working examples."]
    lines += [".It Pa /usr/share/doc/gatehouse/schema", "The schema for editors, from"]
    lines += [f".Nm {program}", ".Fl -schema ."]
    lines += [".El", ".Sh SEE ALSO"]
    related = sorted(related, key=lambda word: (word.split()[1], word))
    lines += [f".Xr {other}" + (" ," if other != related[-1] else "") for other in related]
    return f"{name}.5", "\n".join(lines) + "\n"


def main(argv):
    if argv not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    status = 0
    for program in PAGES:
        schema = json.loads((ROOT / f"config/schema/{program}.json").read_text(encoding="utf-8"))
        name, text = page(program, schema)
        path = ROOT / "docs/man" / name
        if not argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/man/{name} is out of date: run make schema", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
