"""stabkit: why fine-tuning collapses for some seeds, measured, drawn and mended.

Companion package of the interactive edition of *On the Stability of Fine-tuning BERT*
(Mosbach, Andriushchenko and Klakow, ICLR 2021, arXiv:2006.04884).
"""

__version__ = "0.2.0"  # the second number changes where the same run would have other bits
