"""The stand-in speaks the interface that the client was made for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import cryosparc
import pytest
from testserver.api5 import ENDPOINTS, Endpoint


def signatures() -> dict[str, ast.FunctionDef]:
    """Operations of the client's own description, by their dotted names."""
    source = (Path(cryosparc.__file__).parent / "api.pyi").read_text("utf-8")
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    found: dict[str, ast.FunctionDef] = {}
    for node in classes["APIClient"].body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            group = classes[ast.unparse(node.annotation)]
            for operation in group.body:
                if isinstance(operation, ast.FunctionDef):
                    found[f"{node.target.id}.{operation.name}"] = operation
    return found


SIGNATURES = signatures()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_operation_is_the_clients(endpoint: Endpoint) -> None:
    signature = SIGNATURES[endpoint.name].args
    schema: Any = endpoint.schema()
    in_path = [parameter["name"] for parameter in schema["parameters"] if parameter["in"] == "path"]
    assert in_path == [argument.arg for argument in signature.posonlyargs if argument.arg != "self"]
    keywords = dict(zip((a.arg for a in signature.kwonlyargs), signature.kw_defaults, strict=True))
    if endpoint.body is not None and endpoint.body[0].endswith("form-urlencoded"):
        assert {"username", "password"} <= set(keywords)
        return
    unknown = set(endpoint.query) - set(keywords)
    assert not unknown
    required = {name for name, default in keywords.items() if default is None}
    assert required == {name for name, needed in endpoint.query.items() if needed}
    body = [argument.arg for argument in signature.args if argument.arg != "self"]
    assert body == ([] if endpoint.body is None else [endpoint.body[1].lower().replace(" ", "_")])


def test_answers_are_the_clients() -> None:
    for endpoint in ENDPOINTS:
        answer = ast.unparse(SIGNATURES[endpoint.name].returns or ast.Constant(None))
        if isinstance(endpoint.answer, dict) and "$ref" in endpoint.answer:
            assert endpoint.answer["$ref"].rpartition("/")[2] == answer
        elif isinstance(endpoint.answer, str):
            assert answer in ("Dataset", "Stream")
