"""The tuned lens: an affine map before each readout (Belrose et al. 2023, arXiv 2303.08112).

``h + A h + b`` goes where ``h`` goes in the plain logit lens: into the model's own final norm and
head. The last readout has no map, as it is the model's own output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TunedLens:
    """The maps of readouts 0 … L-1.

    Attributes:
        weight: ``[L, D, D]`` float32 matrices A.
        bias: ``[L, D]`` float32 b.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, readout: int, states: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` states as the readout is given them, in their own dtype and place."""
        if readout == len(self.weight):
            return states
        weight, bias = self.weight[readout].to(states.device), self.bias[readout].to(states.device)
        return apply_map(states.float(), weight, bias).to(states.dtype)


def identity_lens(blocks: int, width: int) -> TunedLens:
    """The lens that is the logit lens: all maps are zero."""
    return TunedLens(torch.zeros(blocks, width, width), torch.zeros(blocks, width))


def apply_map(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[..., D]`` states h mapped to h + A h + b."""
    return states + states @ weight.T + bias
