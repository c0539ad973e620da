import os

import matplotlib.image
import numpy as np
import pytest

from k3seq.inspect.ascent import Ascent
from k3seq.inspect.pictures import draw_ascent, draw_images, save_figure

pytestmark = pytest.mark.once


@pytest.mark.parametrize("shape", [(5,), (8, 8), (8, 8, 1), (8, 8, 3)])
def test_an_ascent_becomes_a_picture(shape, tmp_path):
    ascent = Ascent(np.linspace(-2, 3, int(np.prod(shape))).reshape(shape), [0.0, 1.0, 4.0])
    figure = draw_ascent(ascent, "unit 3")
    assert figure.axes[0].get_title() == "unit 3"
    assert figure.axes[1].lines[0].get_ydata().tolist() == [0.0, 1.0, 4.0]
    save_figure(figure, tmp_path / "a.png")
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert pixels.shape[0] == 400 and pixels.std() > 0.01  # not an empty sheet
    assert os.listdir(tmp_path) == ["a.png"]


def test_images_stand_in_rows_and_the_last_may_be_short():
    figure = draw_images(np.zeros((10, 4, 4, 1)), columns=4)
    assert [len(axes.images) for axes in figure.axes] == [1] * 10 + [0] * 2
    with pytest.raises(ValueError, match="0 images"):
        draw_images([])


class Unprintable:
    """A figure that fails halfway."""


def test_a_failed_picture_leaves_the_old_one_and_no_rest(tmp_path):
    path = tmp_path / "a.png"
    save_figure(draw_images(np.zeros((1, 4, 4))), path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        save_figure(Unprintable(), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.png"]
