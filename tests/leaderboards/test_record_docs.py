"""docs/records.md has the fields of the model, in its order and its words."""

from pathlib import Path

from onebit.leaderboards.recording.migration import SCHEMA_VERSION
from onebit.leaderboards.recording.record import Record

DOCS = Path(__file__).resolve().parents[2] / "docs" / "records.md"


def kind(name: str) -> str:
    """JSON's name of a field's type."""
    schema = Record.model_json_schema()["properties"][name]
    options = schema.get("anyOf", [schema])
    return " or ".join("object" if "$ref" in o else str(o.get("type", "integer")) for o in options)


def fields() -> str:
    """The table as it has to stand in the documentation."""
    rows = [f"| `{name}` | {kind(name)} | {field.description} |" for name, field in Record.model_fields.items()]
    last = "| `digest` | string | SHA-256 of all other fields as canonical JSON (sorted keys, no spaces) |"
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows, last])


def test_every_field_is_documented_as_the_model_says():
    assert fields() in DOCS.read_text(), f"docs/records.md has to hold\n{fields()}"


def test_the_version_is_the_models():
    assert f"\nVersion {SCHEMA_VERSION}." in DOCS.read_text()
