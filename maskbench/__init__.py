"""maskbench: mask images so that they can be classified but not seen, and measure how well that works.

The method is the adversarial autoencoder of Lis, Koryciński and Ciecierski, "Classification of
masked image data", PLoS ONE 16(7): e0254181, 2021.
"""

__version__ = "0.1.0"
