"""Split coco128 by file name: the first 100 pictures to train on, the other 28 to score."""

import json
import sys
from pathlib import Path

labels = Path(sys.argv[1])
content = json.loads(labels.read_text())
images = sorted(content["images"], key=lambda image: image["file_name"])
for part, chosen in (("train100", images[:100]), ("val28", images[100:])):
    ids = {image["id"] for image in chosen}
    boxes = [box for box in content["annotations"] if box["image_id"] in ids]
    Path(f"{part}.json").write_text(json.dumps({**content, "images": chosen, "annotations": boxes}))
