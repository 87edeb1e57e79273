"""Images with masks to train a segmenter on, as the settings ask for them."""

from mobilenets.data.mask_augment import MaskAugment
from mobilenets.data.mask_loader import MaskBatches
from mobilenets.data.masks import MaskData
from mobilenets.training.settings import Settings


def mask_augment(data: MaskData, settings: Settings) -> MaskAugment:
    """What may happen to an image."""
    return MaskAugment(flip=data.flip if settings.flip is None else settings.flip)


def mask_batches(data: MaskData, settings: Settings, size: int) -> MaskBatches:
    """Batches of images stretched to ``size`` pixels, with their masks."""
    return MaskBatches(data.train, size, settings.batch_size, seed=settings.seed, augment=mask_augment(data, settings))
