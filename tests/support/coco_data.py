"""A small data set in COCO's layout: coloured rectangles on grey."""

import json

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 7, "name": "red", "supercategory": "colour"}, {"id": 3, "name": "blue"}]
COLORS = {7: (200, 30, 30), 3: (30, 30, 200)}


def annotation(number, image, category, box, **more):
    written = {"bbox": box, "area": abs(box[2] * box[3]), "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]}
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, **written, **more}


def coco(folder, train=6, test=4, size=(80, 64), **changes):
    """Make the data below `folder`; `changes` replace keys of both annotation files. Gives `folder`."""
    random = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, count in (("train2017", train), ("val2017", test)):
        (folder / part).mkdir(exist_ok=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = np.full((size[1], size[0], 3), 120, np.uint8)
            name = f"{number:03}.png"
            for category, left in ((7, 2), (3, 42)):
                width, height = random.integers(12, 36, 2).tolist()
                top = int(random.integers(0, size[1] - height))
                pixels[top : top + height, left : left + width] = COLORS[category]
                annotations.append(annotation(len(annotations) + 1, number, category, [left, top, width, height]))
            Image.fromarray(pixels).save(folder / part / name)
            images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        content = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def edit(folder, change, part="train2017"):
    """Change an annotation file's content in place."""
    path = folder / "annotations" / f"instances_{part}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
