"""The commands of README and docs, and what is wrong with them as far as it can be seen without a cluster."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml

from custom_resources import CHARTS, ROOT, definition, schema
from mailfleet_operator import names
from mailfleet_operator.conditions import Type
from mailfleet_operator.relay_plan.conditions import RelayType
from mailfleet_sender.__main__ import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHELL = ("sh", "bash", "console")
PLURALS = ("emailcampaigns", "emailrelays")
OTHERS = {
    "configmap", "configmaps", "crd", "deployment", "events", "job", "jobs", "namespace", "namespaces", "nodes", "pod",
    "pods", "quota", "secret", "secrets",
}  # fmt: skip
"""Kinds of Kubernetes that the docs speak of."""
KUBECTL = {
    "annotate", "apply", "config", "create", "delete", "describe", "edit", "exec", "explain", "get", "label", "logs",
    "patch", "rollout", "run", "wait",
}  # fmt: skip
OF_A_KIND = KUBECTL - {"apply", "config", "exec", "logs", "rollout", "run"}
"""Verbs that are followed by a kind."""
CONDITIONS = {"emailcampaigns": [*Type, "delete"], "emailrelays": [*RelayType, "delete"]}
"""What can be waited for."""
HELM = {
    "dependency", "history", "install", "list", "package", "pull", "push", "rollback", "show", "status", "template",
    "test", "uninstall", "upgrade",
}  # fmt: skip
OPTIONS = {
    "kubectl": {
        "-A", "-f", "-k", "-l", "-n", "-o", "-p", "--all-namespaces", "--for", "--from-file", "--from-literal",
        "--namespace", "--patch-file", "--server-side", "--show-managed-fields", "--tail", "--timeout", "--type",
        "--watch", "--cascade", "--current",
    },
    "helm": {
        "-f", "-n", "--install", "--key", "--keyring", "--namespace", "--set", "--set-file", "--set-string", "--sign",
        "--values", "--verify", "--version", "--wait",
    },
}  # fmt: skip
"""Options that the docs use. One more is added here once it was looked up."""
WITH_VALUE = {
    "-f", "-k", "-l", "-n", "-o", "-p", "--for", "--from-file", "--from-literal", "--key", "--keyring", "--namespace",
    "--patch-file", "--set", "--set-file", "--set-string", "--tail", "--timeout", "--type", "--values", "--version",
}  # fmt: skip
FILES = {"-f", "-k", "--patch-file", "--values"}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
ACTIONS = ROOT / "deploy/argocd/resource_customizations/mailfleet.dev"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page; `whole` if it stands in a block, to be typed as it is."""

    page: str
    line: int
    text: str
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """README, docs and the chart's README."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
            CHARTS["mailfleet"] / "README.md"]  # fmt: skip


def of(page: str, text: str) -> Iterator[Command]:
    """The commands of a page: each line of a block of shell, lines of plain blocks that begin with a program that is
    known here, and such words within the text."""
    language: str | None = None
    begun: Command | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if (fence := line.strip()).startswith("```"):
            language = fence[3:] if language is None else None
        elif language is None:
            for word in re.findall(r"`([a-z][^`]+)`", line):
                inline = word.replace("\\|", "|")
                if re.match(r"(make|kubectl|helm|argocd|mailfleet-(sender|operator)) ", inline):
                    yield Command(page, number, inline, whole=False)
        elif language in SHELL or (not language and (begun or line.removeprefix("$ ").split(" ")[0] in PROGRAMS)):
            if not begun and not line.strip():
                continue
            part = line.removeprefix("$ ")
            begun = Command(page, begun.line, begun.text + part) if begun else Command(page, number, part)
            if begun.text.endswith("\\"):
                begun = Command(page, begun.line, begun.text[:-1])
            else:
                yield begun
                begun = None


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The blocks of a language, each with the number of its first line."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def faults(command: Command) -> list[str]:
    """What is wrong with a command, in words; nothing if it may be right."""
    lexer = shlex.shlex(command.text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError as error:
        return [str(error)]
    found, words = [], list[str]()
    for token in [*tokens, ";"]:
        if not set(token) <= set("();<>|&"):
            words.append(token)
        elif words and (command.whole or not found):
            if words[0] in PROGRAMS:
                found += PROGRAMS[words[0]](words[1:], command.whole)
            elif not token_is_target(words, tokens):
                found.append(f"{words[0]} is no program that is known here")
            if not command.whole:
                break
            words = []
    paths = (word.partition("=")[2] or word for word in tokens)
    return found + [f"there is no {path}" for path in paths if path.split("/")[0] in TOP and not exists(path)]


def token_is_target(words: list[str], tokens: list[str]) -> bool:
    """Whether it is the file of a redirection."""
    at = tokens.index(words[0])
    return at > 0 and set(tokens[at - 1]) <= set("<>")


def exists(path: str) -> bool:
    """Whether the project has it; names with a variable or a pattern are not looked at."""
    return "/" not in path or bool(set(path) & set("$*{")) or (ROOT / path).exists()


def make(words: list[str], whole: bool) -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))
    found = [f"make has no target {word}" for word in words if "=" not in word and word not in targets]
    names_ = [word.partition("=")[0] for word in words if "=" in word]
    return found + [f"make knows no {name}" for name in names_ if not re.search(rf"\b{name}\b", text)]


def sender(words: list[str], whole: bool) -> list[str]:
    told = io.StringIO()
    given = [word for word in words if word != "..."]
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            command_line().parse_args(given)
    except SystemExit as ended:
        said = told.getvalue().strip().splitlines()[-1:] if ended.code else []
        return [line for line in said if whole or "arguments are required" not in line]
    return []


def operator(words: list[str], whole: bool) -> list[str]:
    return [f"mailfleet-operator takes no {word}" for word in words]


def options(program: str, words: list[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """What stands alone, options with their values, and options that are not known."""
    alone, given, unknown = [], [], []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            alone.append(word)
            continue
        name, is_, value = word.partition("=")
        if name not in OPTIONS[program]:
            unknown.append(f"{program} has no option {name} that is known here")
        given.append((name, value if is_ or name not in WITH_VALUE else next(rest, "")))
    return alone, given, unknown


def kubectl(words: list[str], whole: bool) -> list[str]:
    alone, given, found = options("kubectl", words)
    verb, *what = alone or [""]
    if verb not in KUBECTL:
        return [*found, f"kubectl has no verb {verb} that is known here"]
    found += [f"there is no {value}" for name, value in given if name in FILES and not is_there(value)]
    found += unknown_deployments(what)
    labels = {value for name, value in vars(names).items() if name.startswith("LABEL_")}
    asked = (value.split("=")[0] for name, value in given if name == "-l")
    found += [f"nothing has the label {label}" for label in asked if "mailfleet" in label and label not in labels]
    if not what or verb not in OF_A_KIND:
        return found
    kinds, _, field = what[0].partition("/")[0].partition("." if verb == "explain" else "/")
    found += [f"{k} is no kind that is known here" for k in kinds.split(",") if not plural_of(k) and k not in OTHERS]
    if plural := plural_of(kinds):
        if field and node_at(plural, field) is None:
            found.append(f"{kinds} has no field {field}")
        waits = (value.removeprefix("condition=") for name, value in given if name == "--for")
        found += [f"{plural} have no condition {word}" for word in waits if word not in CONDITIONS[plural]]
        if verb == "patch":
            found += patch(plural, dict(given))
    return found


def unknown_deployments(what: list[str]) -> list[str]:
    """Deployments that the chart does not make."""
    installed = (ROOT / "deploy/install.yaml").read_text(encoding="utf-8")
    made = set(re.findall(r"^kind: Deployment\nmetadata:\n  name: (\S+)$", installed, re.MULTILINE))
    asked = (word.removeprefix("deployment/") for word in what if word.startswith("deployment/"))
    return [f"there is no deployment {name}" for name in asked if name not in made]


def patch(plural: str, given: dict[str, str]) -> list[str]:
    """A custom resource takes merge patches and JSON patches alone."""
    if given.get("--type") != "merge":
        return ["a custom resource takes no strategic merge patch: --type=merge"]
    try:
        body = json.loads(given.get("-p", ""))
    except ValueError as error:
        return [f"-p is no JSON: {error}"]
    return misfits(body, form(plural, required=False))


def helm(words: list[str], whole: bool) -> list[str]:
    alone, given, found = options("helm", [word for word in words if word != "..."])
    if not alone or alone[0] not in HELM:
        found.append(f"helm has no verb {alone[:1]} that is known here")
    found += [f"there is no {value}" for name, value in given if name in FILES and not is_there(value)]
    values = yaml.safe_load((CHARTS["mailfleet"] / "values.yaml").read_text(encoding="utf-8"))
    for name, value in given:
        if name in {"--set", "--set-file", "--set-string"}:
            for path in re.findall(r"(?:^|,)([A-Za-z][\w.]*)(?:\[\d+\])?=", re.sub(r"\{.*?\}", "", value)):
                if not has_value(values, path.split(".")):
                    found.append(f"the chart has no value {path}")
    return found


def has_value(node: Any, path: list[str]) -> bool:
    """A default that is an empty mapping may hold anything."""
    if not path or node == {}:
        return True
    return isinstance(node, dict) and path[0] in node and has_value(node[path[0]], path[1:])


def is_there(path: str) -> bool:
    """A file of the project, or one of the reader's: absolute, on the web, without a folder, from standard input."""
    return path.startswith(("/", "~", "http")) or "/" not in path or exists(path)


def docker(words: list[str], whole: bool) -> list[str]:
    stages = re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    asked = [words[n + 1] for n, word in enumerate(words[:-1]) if word == "--target"]
    return [f"the Dockerfile has no stage {stage}" for stage in asked if stage not in stages]


def argocd(words: list[str], whole: bool) -> list[str]:
    if words[:3] != ["app", "actions", "run"]:
        return []
    kind = words[words.index("--kind") + 1] if "--kind" in words[:-1] else ""
    known = (ACTIONS / kind / "actions" / words[4] / "action.lua").is_file() if len(words) > 4 and kind else False
    return [] if known else [f"there is no action {' '.join(words[4:5])} of {kind or '(no --kind)'}"]


def unjudged(words: list[str], whole: bool) -> list[str]:
    """Programs of others, of which only the paths are looked at."""
    return []


PROGRAMS = {
    "make": make, "mailfleet-sender": sender, "mailfleet-operator": operator, "kubectl": kubectl, "helm": helm,
    "docker": docker, "argocd": argocd, "cosign": unjudged, "source": unjudged, "git": unjudged,
    ".venv/bin/pre-commit": unjudged, ".venv/bin/pytest": unjudged,
}  # fmt: skip


# --- YAML of the docs --------------------------------------------------------------------------------


def yaml_faults(text: str) -> list[str]:
    """What is wrong with a block of YAML: a whole resource, or some fields that stand together in one."""
    found = []
    for body in yaml.safe_load_all(text):
        plural = plural_of(str(body.get("kind", "")).lower())
        if plural:
            found += misfits(body, form(plural))
        elif "kind" not in body:
            homes = [node for plural in PLURALS for node in objects(form(plural)) if {*body} <= {*node["properties"]}]
            best = min((misfits(body, strict(node, required=False)) for node in homes), key=len, default=None)
            found += [f"no resource has {', '.join(body)} together"] if best is None else best
    return found


@cache
def form(plural: str, *, required: bool = True) -> Any:
    """The schema of our kind, strict."""
    return strict(schema(plural), required=required)


@cache
def plural_of(word: str) -> str | None:
    """The plural of one of our kinds, by any of its names."""
    for plural in PLURALS:
        told = definition(plural)["spec"]["names"]
        if word in {told["plural"], told["singular"], *told["shortNames"]}:
            return plural
    return None


def node_at(plural: str, field: str) -> dict[str, Any] | None:
    """The schema of a field as `kubectl explain` names it."""
    node: dict[str, Any] | None = schema(plural)
    for name in field.split("."):
        while node and "items" in node:
            node = node["items"]
        node = (node or {}).get("properties", {}).get(name)
    return node


def objects(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node and all below that have fields."""
    if "properties" in node:
        yield node
    for child in [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]:
        yield from objects(child)


def strict(node: Any, *, required: bool = True) -> Any:
    """The schema for jsonschema: other fields are refused, as the API server says it with --validate=strict."""
    if isinstance(node, list):
        return [strict(each, required=required) for each in node]
    if not isinstance(node, dict):
        return node
    made = {k: strict(v, required=required) for k, v in node.items() if required or k != "required"}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def misfits(body: Any, wanted: Any) -> list[str]:
    """How a value breaks a schema; null takes a field away."""
    checker = jsonschema.Draft202012Validator(wanted)
    found = checker.iter_errors(json.loads(json.dumps(body, default=str)))
    return [f"{error.json_path}: {error.message}" for error in found if error.instance is not None]
