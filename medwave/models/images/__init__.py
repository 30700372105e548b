"""Networks on images: WaveCNets, which classify, WaveSNets, which segment, and their twins without wavelets."""
