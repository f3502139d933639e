"""Draw what a detector found as an SVG of boxes alone, without the photographs: true boxes gray, found ones blue."""

import json
import sys
from html import escape
from pathlib import Path

labels, predictions, target, count = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
SIDE, GAP, COLUMNS = 220, 10, 4
content = json.loads(labels.read_text())
names = {category["id"]: category["name"] for category in content["categories"]}
found = json.loads(predictions.read_text())
images = content["images"][:count]
rows = -(-len(images) // COLUMNS)
width, height = COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + GAP) + GAP
parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
    f'font-size="10"><rect width="{width}" height="{height}" fill="white"/>'
]


def box(x, y, bbox, scale, style, text, colour, lower):
    left, top, wide, high = (value * scale for value in bbox)
    at = y + top + (high - 3 if lower else 10)
    return (
        f'<rect x="{x + left:.1f}" y="{y + top:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="none" {style}/>'
        f'<text x="{x + left + 2:.1f}" y="{at:.1f}" fill="{colour}">{escape(text)}</text>'
    )


for at, image in enumerate(images):
    x, y = (GAP + place * (SIDE + GAP) for place in (at % COLUMNS, at // COLUMNS))
    scale = SIDE / max(image["width"], image["height"])
    parts.append(
        f'<rect x="{x}" y="{y}" width="{image["width"] * scale:.1f}" height="{image["height"] * scale:.1f}" '
        'fill="#f4f4f4" stroke="#ccc"/>'
    )
    for row in (row for row in content["annotations"] if row["image_id"] == image["id"]):
        style = 'stroke="#888" stroke-dasharray="3 2"'
        parts.append(box(x, y, row["bbox"], scale, style, names[row["category_id"]], "#888", True))
    for row in (row for row in found if Path(row["file_name"]).name == image["file_name"]):
        text = f"{row['category']} {row['score']:.2f}"
        parts.append(box(x, y, row["bbox"], scale, 'stroke="#06c" stroke-width="1.5"', text, "#06c", False))
target.write_text("\n".join([*parts, "</svg>\n"]))
