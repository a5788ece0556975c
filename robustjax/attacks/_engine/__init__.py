"""Run any attack over any number of images, on all devices."""
