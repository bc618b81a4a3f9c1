"""All products of two vectors, in a vector of a chosen length.

Compact bilinear pooling by tensor sketch (Gao et al., CVPR 2016; Fukui et al., EMNLP 2016): both
vectors are folded by fixed random places and signs, and the folds convolved.
"""

import torch
from torch import Tensor, nn


class CompactBilinearPooling(nn.Module):
    """(B, D), (B, D) -> (B, num_out), in float32: half precision loses the products.

    is_normalised: signed square roots, scaled to the length 1. The places and signs are drawn with
        a seed of their own and are part of the state.
    """

    def __init__(self, width: int, num_out: int, *, is_normalised: bool = True) -> None:
        super().__init__()
        self.num_out = num_out
        self.is_normalised = is_normalised
        random = torch.Generator().manual_seed(0)
        for side in (1, 2):
            places = torch.randint(num_out, (width,), generator=random)
            signs = 2 * torch.randint(2, (width,), generator=random) - 1
            self.register_buffer(f"hash{side}", places)
            self.register_buffer(f"sign{side}", signs)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            spectra = [
                torch.fft.rfft(self._folded(x.float(), side))
                for side, x in ((1, first), (2, second))
            ]
            pooled: Tensor = torch.fft.irfft(spectra[0] * spectra[1], n=self.num_out)
            if not self.is_normalised:
                return pooled
            # Of zero the root has no slope: what is this small says nothing.
            rooted = pooled.sign() * (pooled.abs() + 1e-12).sqrt()
            return nn.functional.normalize(rooted, dim=-1)

    def _folded(self, x: Tensor, side: int) -> Tensor:
        places: Tensor = getattr(self, f"hash{side}")
        signs: Tensor = getattr(self, f"sign{side}")
        return x.new_zeros(len(x), self.num_out).index_add(1, places, x * signs)
