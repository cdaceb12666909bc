"""Matrix products in another dtype than the model's, for work that needs fewer digits.

Hidden states, sums and softmax stay in the model's dtype; the products' inputs are rounded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from phaseprune.decoder.decoder import Decoder


def products_in(decoder: Decoder, dtype: torch.dtype | None) -> AbstractContextManager:
    """Have matrix products in a dtype while the context lasts; None leaves them as they are."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(decoder.device.type, dtype)
