"""Training images with their masks as the network gets them, as a picture."""

from pathlib import Path

from mobilenets.data.box_augment_sheet import tiled
from mobilenets.data.mask_augment import MaskAugment
from mobilenets.data.mask_drawing import draw_mask
from mobilenets.data.mask_loader import MaskBatches
from mobilenets.data.masks import MaskData

_DEFAULT = MaskAugment()


def augmented_mask_sheet(
    data: MaskData,
    path: Path | str,
    size: int = 256,
    augment: MaskAugment | None = _DEFAULT,
    seed: int = 0,
    columns: int = 4,
    rows: int = 3,
) -> Path:
    """Draws some training images, augmented, with their masks over them, as a PNG.

    Args:
        data: The data set.
        path: The file to write.
        size: Height and width of each, pixels.
        augment: What may happen to an image. None: nothing.
        seed: Which images, and what happens to them; at least 0.
        columns: Images side by side.
        rows: Images one below the other.

    Returns:
        ``path``.

    Raises:
        UserError: ``path`` cannot be written, or a file has vanished or gone bad.
        ValueError: an argument is out of its range.
    """
    return tiled(
        path,
        lambda: MaskBatches(data.train, size, columns, seed=seed, augment=augment),
        lambda image, mask: draw_mask(image, mask, data.classes),
        size,
        columns,
        rows,
    )
