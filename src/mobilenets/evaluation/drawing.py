"""The one quiet style of all pictures, and the way they reach the disk."""

import logging
import warnings
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mobilenets.files import explain, writing

INK, QUIET, FAINT = "#1f2328", "#6a7079", "#dfe3e8"
MIDDLE = "#757b84"  # readable on white and on black
ACCENT, PALE = "#1f5fae", "#9fb3c8"
DPI = 180
PHOTO_DPI = 150  # photographs make a PNG large

# Fonts that know Chinese, Japanese and Korean, by operating system; the first one installed is the fallback
# for characters that DejaVu (which comes with matplotlib) lacks.
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "axes.edgecolor": FAINT,
    "axes.labelcolor": QUIET,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

# A font for Chinese, Japanese and Korean often has one weight, which is then used for bold as well.
logging.getLogger("matplotlib.font_manager").addFilter(lambda record: "font weight" not in record.getMessage())


def style() -> dict[str, Any]:
    """Returns STYLE with the fonts of this machine."""
    installed = set(font_manager.get_font_names())
    return STYLE | {"font.family": ["DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1]]}


def save(figure: Figure, path: Path | str) -> Path:
    """Writes ``figure`` as a PNG, whole or not at all."""
    path = Path(path)
    FigureCanvasAgg(figure)
    with writing(path) as temporary, warnings.catch_warnings():
        # A character that no installed font has is drawn as a box: no reason to alarm the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.03, metadata={"Software": None})
    return path


def nothing(path: Path | str) -> None:
    """Removes an older picture, which would now tell a lie."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, Path(path)) from error
