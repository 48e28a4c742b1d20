"""energybench: declare a network, a data set, the devices and a power meter; get joules, seconds and accuracy."""

__version__ = "0.1.0"
