"""Nothing in avkit leans on the teaching room: dependencies point down only."""

from __future__ import annotations

import ast


def test_only_the_course_imports_teach(repository):
    package = repository / "avkit"
    for path in package.rglob("*.py"):
        if package / "teach" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("avkit.teach") for name in names), f"{path} imports {names}"
