"""From the name of a data set to batches of images on the device: download, decoding, cache, split, augmentation."""
