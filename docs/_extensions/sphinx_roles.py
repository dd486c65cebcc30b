"""Docstrings name things as Sphinx does; this turns it into Markdown for the site."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([^`]+)`")
_DIRECTIVE = re.compile(r"^( *)\.\. (?:code-block:: \w+|math::)(.*)\n((?:\1   .*\n|\s*\n)*)", re.M)


def _fenced(match: re.Match[str]) -> str:
    indent, inline, body = match.groups()
    lines = [line[len(indent) + 3 :] for line in (body or "").strip("\n").splitlines()]
    content = [inline.strip(), *lines] if inline.strip() else lines
    return "\n".join(f"{indent}{line}".rstrip() for line in ("```text", *content, "```")) + "\n\n"


_DOCTEST = re.compile(r"(?:^>>> .*\n(?:(?!>>> )\S.*\n|\.\.\. .*\n)*)+", re.M)


def _example(match: re.Match[str]) -> str:
    return "```pycon\n" + match[0].replace("  # doctest: +SKIP", "") + "```\n"


class SphinxRoles(griffe.Extension):
    """Rewrites roles and directives before docstrings are parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = _ROLE.sub(lambda match: f"`{match[1].removeprefix('latens.')}`", obj.docstring.value)
            obj.docstring.value = _DOCTEST.sub(_example, _DIRECTIVE.sub(_fenced, text + "\n")).rstrip("\n")
