"""What is read of an HTML page."""

from html.parser import HTMLParser

import numpy as np

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, text, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "  # cells stand apart

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


class Tables(Page):
    """The tables of a page: caption, the table's attributes, and rows of cells with their text and number."""

    def __init__(self, text):
        self.tables = []
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag == "table":
            self.tables.append({"about": dict(attrs), "caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append({"text": "", "value": dict(attrs).get("data-value"), "tag": tag})

    def handle_data(self, data):
        super().handle_data(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1]["rows"][-1][-1]["text"] += data
        elif "caption" in self.open:
            self.tables[-1]["caption"] += data

    def captioned(self, start):
        """The rows of the table with this caption, as text and as numbers, without the head."""
        (found,) = [table for table in self.tables if table["caption"].startswith(start)]
        texts = [[cell["text"] for cell in row] for row in found["rows"][1:]]
        values = [[None if (v := cell["value"]) is None else float(v) for cell in row] for row in found["rows"][1:]]
        return texts, values

    def matrix(self, network, stage, kind):
        """The numbers of a matrix, NaN where a cell has none."""
        wanted = {"data-network": network, "data-stage": str(stage), "data-kind": kind}
        (found,) = [table for table in self.tables if wanted.items() <= table["about"].items()]
        rows = [[cell["value"] for cell in row if cell["tag"] == "td"] for row in found["rows"][1:]]
        return np.array([[np.nan if v is None else float(v) for v in row] for row in rows])


def text_of(page):
    return " ".join(page.text.split())
