"""What a notebook shows of a result."""

import base64
import re
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from test_correlation import of_maps

from dia_analysis.results.display import Displayed


class Hostile(Displayed):
    def summary(self):
        return "<script>1 < 2</script>"

    def plot(self, ax=None):
        ax.set(xlabel='"><script>', ylabel="share")
        return ax


def test_a_result_is_a_table_and_a_figure():
    result = of_maps(torch.rand(5, 3, 8), 2)
    html = result._repr_html_()
    assert html.startswith("<pre>stage  layers")
    (alt, encoded), *more = re.findall(r'<img alt="(.*?)" src="data:image/png;base64,(.*?)">', html)
    assert (alt, more) == ("Density by Pearson r between two layers", [])
    picture = Image.open(BytesIO(base64.b64decode(encoded)))
    assert picture.size == (495, 330)
    assert len(np.unique(np.asarray(picture))) > 20


def test_what_is_shown_cannot_run():
    html = Hostile()._repr_html_()
    assert html == "<pre>&lt;script&gt;1 &lt; 2&lt;/script&gt;</pre>\n"  # and no figure, since nothing is drawn
