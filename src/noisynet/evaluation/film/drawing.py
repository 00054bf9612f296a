"""Frames of a film: the game, and beside it the values of the agent's actions."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .watched import ActionValues

_HEIGHT = 420
_PANEL = 320
_MARGIN = 14
_GROUND, _TEXT, _DIM, _LINE = "#16181d", "#f2f2f2", "#a0a4ad", "#3a3e48"
_CHOSEN, _DRAWS = "#56b4e9", "#e69f00"


class FrameDrawer:
    """Drawer of the frames of one game, all of one size.

    Q-values are shown relative to their mean over actions: the choice of the action depends on
    their differences, which are often far smaller than the value of the state. The scale widens at
    once if it must, and narrows slowly.
    """

    def __init__(self, title: str, action_names: list[str]) -> None:
        """Set the title above the values, and a name for each action."""
        self._title = title
        self._names = action_names
        self._span = 0.0
        self._size: tuple[int, int] | None = None

    def draw(
        self, picture: npt.NDArray[np.uint8], look: ActionValues, step: int, game_return: float
    ) -> Image.Image:
        """Draw one frame; its width and height are even, as the video encoder requires.

        Pictures of another size than the first are fitted into its place.
        """
        game = _fitted(picture)
        self._size = self._size or game.size
        if game.size != self._size:
            game = ImageOps.pad(game, self._size, color=_GROUND)
        frame = Image.new("RGB", (game.width + _PANEL, _HEIGHT), _GROUND)
        frame.paste(game, (0, (_HEIGHT - game.height) // 2))
        canvas = ImageDraw.Draw(frame)
        left, right = game.width + _MARGIN, game.width + _PANEL - _MARGIN
        canvas.text((left, 10), self._title, _TEXT, _font(16))
        canvas.text((left, 32), f"step {step:,}   return {game_return:g}", _DIM, _font(14))
        self._values(canvas, look, left, right)
        return frame

    def _values(
        self, canvas: ImageDraw.ImageDraw, look: ActionValues, left: int, right: int
    ) -> None:
        middle, low, high = self._scale(look)
        names = max(canvas.textlength(name, _font(12)) for name in self._names)
        begin, end = left + int(names) + 24, right
        top, bottom = 62, _HEIGHT - 52
        room = min((bottom - top) / len(self._names), 54)
        size = max(min(int(room * 0.6), 13), 8)

        def x(value: float) -> float:
            place = begin + (end - begin) * (value - middle - low) / (high - low)
            return min(max(place, begin), end)

        for index, name in enumerate(self._names):
            y = top + room * (index + 0.5)
            chosen = index == look.action
            colour = _CHOSEN if chosen else _DIM
            if chosen:
                canvas.polygon([(left, y - 5), (left, y + 5), (left + 8, y)], _CHOSEN)
            canvas.text((left + 14, y), name, colour, _font(size), anchor="lm")
            canvas.line([(begin, y), (end, y)], _LINE)
            half = max(room * 0.3, 3)
            if look.drawn is not None:
                drawn = look.drawn[:, index]
                canvas.rectangle(
                    [x(float(drawn.min())), y - half / 3, x(float(drawn.max())), y + half / 3],
                    "#5c4513",
                )
                for value in drawn:
                    canvas.line([(x(float(value)), y - half), (x(float(value)), y + half)], _DRAWS)
            value = x(float(look.values[index]))
            canvas.line([(value, y - half - 2), (value, y + half + 2)], _TEXT, 3)
        y = top + room * len(self._names) + 2
        marks = ("0", "1") if look.kind == "probability" else (f"{low:+.2g}", f"{high:+.2g}")
        canvas.text((begin, y), marks[0], _DIM, _font(11))
        canvas.text((end, y), marks[1], _DIM, _font(11), anchor="ra")
        if look.kind == "Q":
            canvas.text(((begin + end) / 2, y), f"mean {middle:.3g}", _DIM, _font(11), anchor="ma")
        kind = "Q" if look.kind == "Q" else "probability"
        canvas.line([(left, _HEIGHT - 23), (left, _HEIGHT - 11)], _TEXT, 3)
        canvas.text((left + 8, _HEIGHT - 25), f"{kind}, mean weights", _DIM, _font(12))
        if look.drawn is not None:
            canvas.line([(left + 160, _HEIGHT - 23), (left + 160, _HEIGHT - 11)], _DRAWS)
            said = f"{len(look.drawn)} draws of noise"
            canvas.text((left + 168, _HEIGHT - 25), said, _DIM, _font(12))

    def _scale(self, look: ActionValues) -> tuple[float, float, float]:
        """Return the value in the middle of the scale, and the ends of the scale relative to it."""
        if look.kind == "probability":
            return 0.0, 0.0, 1.0
        middle = float(look.values.mean())
        widest = float(np.abs(look.values - middle).max())
        if look.drawn is not None:
            widest = max(widest, float(np.abs(look.drawn - middle).max()))
        self._span = max(widest, self._span * 0.98, 1e-6)
        return middle, -self._span, self._span


def _fitted(picture: npt.NDArray[np.uint8]) -> Image.Image:
    """Fit a picture into the frame: enlarge it by a whole factor, or shrink it smoothly."""
    image = Image.fromarray(picture)
    whole = min(_HEIGHT // image.height, 480 // image.width)
    if whole >= 1:
        size, how = (image.width * whole, image.height * whole), Image.Resampling.NEAREST
    else:
        scale = min(_HEIGHT / image.height, 480 / image.width)
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        how = Image.Resampling.BILINEAR
    even = (size[0] + size[0] % 2, min(size[1], _HEIGHT))
    return image.resize(even, how)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
