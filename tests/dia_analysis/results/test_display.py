"""What a notebook shows of a result."""

import base64
import re
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from dia_analysis.results.base import Result
from tests.support.gates import of_maps


@dataclass(frozen=True, repr=False)
class Hostile(Result):
    values: np.ndarray
    text: str = "<script>1 < 2</script>"
    drawn: bool = True

    def summary(self):
        return self.text

    def panels(self):
        return [lambda ax: ax.set(xlabel='"><script>', ylabel="share")] if self.drawn else []

    to_dict = to_dataframe = datasets = None


def test_a_result_is_a_table_and_its_picture():
    result = of_maps(torch.rand(5, 3, 8), 2)
    html = result._repr_html_()
    assert html.startswith("<pre>stage  layers")
    (alt, encoded), *more = re.findall(r'<img alt="(.*?)" src="data:image/png;base64,(.*?)">', html)
    assert (alt, more) == ("Layer by Layer", [])
    picture = Image.open(BytesIO(base64.b64decode(encoded)))
    assert picture.size == (675, 450)
    assert len(np.unique(np.asarray(picture))) > 20


def test_what_is_shown_cannot_run():
    html = Hostile(np.zeros(1))._repr_html_()
    assert html.startswith("<pre>&lt;script&gt;1 &lt; 2&lt;/script&gt;</pre>\n<img")
    assert "script>" not in html
    assert Hostile(np.zeros(1), drawn=False)._repr_html_() == html[: html.index("<img")]


def test_repr_gives_shapes_and_no_numbers():
    text = repr(Hostile(np.zeros((2, 65536), np.float32), "a" * 100))
    assert text == f"Hostile(values=<float32 2x65536>, text='{'a' * 59}..., drawn=True)"
