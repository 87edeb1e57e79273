"""Images with boxes to train a detector on, as the settings ask for them."""

from mobilenets.data.box_augment import BoxAugment
from mobilenets.data.box_loader import BoxBatches
from mobilenets.data.boxes import BoxData
from mobilenets.training.settings import Settings


def box_augment(data: BoxData, settings: Settings) -> BoxAugment:
    """What may happen to an image."""
    return BoxAugment(flip=data.flip if settings.flip is None else settings.flip, mosaic=settings.mosaic)


def box_batches(data: BoxData, settings: Settings, size: int) -> BoxBatches:
    """Batches of images stretched to ``size`` pixels, with their objects."""
    return BoxBatches(data.train, size, settings.batch_size, seed=settings.seed, augment=box_augment(data, settings))
